"""The engine on an NVIDIA GPU: `pytest tests/engine/test_engine_cuda.py` where there is one; skipped elsewhere."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import multiprocessing
import pickle
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from embrief import ArgumentError, BackendError, Embedder, Reranker

from ..conftest import make_reranker

torch = pytest.importorskip("torch")
pytest.importorskip("sentence_transformers")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU that torch sees"),
]

HANGS = 120
# Around the sliding windows, blocks of queries and filled-up keys, and long.
LENGTHS = [*range(4, 12), 16, 17, 31, 32, 33, 127, 128, 129, 255, 257, 511, 513, 700, 1000, 1025, 2000]
FORMATS = ["float32", "bfloat16", "float16"]


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    one, other = one.astype(np.float64), other.astype(np.float64)
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


def digits(count: int) -> str:
    """A text of so many tokens: the tokenizers of the test models keep digits apart."""
    return "".join(map(str, np.random.default_rng(count).integers(0, 10, count)))


def texts_of(lengths: list[int]) -> list[str]:
    return [digits(length) for length in lengths] + [f"{digits(40)}{number}" for number in range(30)]


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **changes}), "utf-8")


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Test models that take texts of 2,100 tokens, with weights in bfloat16: what formats add is arithmetic alone."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        from safetensors.torch import load_file, save_file

        if name not in made:
            folder = tmp_path_factory.mktemp("cuda") / name
            shutil.copytree(request.getfixturevalue(f"{name}_folder"), folder)
            config = json.loads((folder / "config.json").read_text("utf-8"))
            (config.get("text_config") or config)["max_position_embeddings"] = 2100
            (folder / "config.json").write_text(json.dumps(config), "utf-8")
            if (folder / "sentence_bert_config.json").is_file():
                edit(folder / "sentence_bert_config.json", max_seq_length=2100)
            for file in folder.rglob("*.safetensors"):
                save_file({key: value.bfloat16() for key, value in load_file(file).items()}, file, {"format": "pt"})
            made[name] = folder
        return made[name]

    return make


@pytest.fixture(params=["qwen3", "gemma", "gemma2_text"])
def folder(request: pytest.FixtureRequest, long: Callable[[str], Path]) -> Path:
    if request.param == "gemma2_text":
        pytest.importorskip("transformers.models.embedding_gemma2")
    return long(request.param)


@pytest.fixture
def qwen3(long: Callable[[str], Path]) -> Path:
    return long("qwen3")


@pytest.fixture
def opened() -> Iterator[Callable[..., Embedder]]:
    """Make embedders that end with the test, so that the GPU's memory is free for the next."""
    made: list[Embedder] = []

    def make(folder: Path, dtype: str = "float32", device: str = "cuda", **options: object) -> Embedder:
        made.append(Embedder(folder, dtype=dtype, device=device, backend="engine", **options))
        return made[-1]

    yield make
    for embedder in made:
        embedder.close()


def peer(folder: Path, dtype: str = "float32"):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cuda", model_kwargs={"dtype": getattr(torch, dtype)})


def banned(folder: Path, dtype: str) -> bool:
    return dtype == "float16" and "gemma" in folder.name


@pytest.fixture
def kernel_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many queries each call of a kernel for whole batches had."""
    from embrief.engine import varlen

    found: list[int] = []
    attend = varlen.attend

    def noted(kernel, q, *args, **options):
        found.append(len(q))
        return attend(kernel, q, *args, **options)

    monkeypatch.setattr(varlen, "attend", noted)
    return found


def test_float32_equals_sentence_transformers_here_and_the_engine_on_the_cpu(folder: Path, opened) -> None:
    texts = texts_of(LENGTHS)
    found = opened(folder).embed_documents(texts)
    assert cosines(found, peer(folder).encode_document(texts, batch_size=4)).min() >= 0.99999
    assert cosines(found, opened(folder, device="cpu").embed_documents(texts)).min() >= 0.99999
    queries = [text for text in texts if len(text) < 1500]
    assert cosines(opened(folder).embed_queries(queries), peer(folder).encode_query(queries)).min() >= 0.99999


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_formats_are_no_further_off_than_sentence_transformers(folder: Path, dtype: str, opened) -> None:
    if banned(folder, dtype):
        with pytest.raises(ArgumentError, match="float16"):
            opened(folder, dtype).load()
        return
    texts = texts_of(LENGTHS)
    exact = peer(folder).encode_document(texts, batch_size=4)
    ours = 1 - cosines(opened(folder, dtype).embed_documents(texts), exact)
    theirs = 1 - cosines(peer(folder, dtype).encode_document(texts, batch_size=4).astype(np.float32), exact)
    # So few texts of so small models differ by chance.
    assert ours.mean() <= 1.5 * theirs.mean()
    assert ours.max() <= 2 * theirs.max()


@pytest.mark.parametrize("dtype", FORMATS)
def test_the_order_and_the_company_of_texts_change_nothing(folder: Path, dtype: str, opened) -> None:
    if banned(folder, dtype):
        pytest.skip("this family is not run in float16")
    embedder = opened(folder, dtype)
    texts = texts_of(LENGTHS)
    whole = embedder.embed_queries(texts)
    order = np.random.default_rng(0).permutation(len(texts))
    least = 0.999999 if dtype == "float32" else 0.999
    assert cosines(embedder.embed_queries([texts[place] for place in order]), whole[order]).min() >= least
    places = [*range(0, len(texts), 5), LENGTHS.index(2000)]
    singles = np.stack([embedder.embed_query(texts[place]) for place in places])
    assert cosines(singles, whole[places]).min() >= least


@pytest.mark.parametrize("dtype", FORMATS)
def test_a_prefix_that_is_shared_gives_what_whole_texts_give(qwen3: Path, dtype: str, opened) -> None:
    embedder = opened(qwen3, dtype)
    queries = [*texts_of([1, 5, 8, 30, 300]), "", "which planet is red?"]
    shared = embedder.embed_queries(queries)
    whole = embedder.embed_documents([embedder.render(query, role="query") for query in queries])
    assert cosines(shared, whole).min() >= (0.999999 if dtype == "float32" else 0.999)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("scoring", ["yes_no", "label"])
def test_rerankers_equal_transformers_here(
    scoring: str, dtype: str, tmp_path: Path, corpus: list[str], make_classified
) -> None:
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    folder = (
        make_classified(tmp_path / "label", 1) if scoring == "label" else make_reranker(tmp_path / "yes-no", corpus)
    )
    documents = [text[:300] for text in corpus[:20]] + ["", digits(400), "x"]
    with Reranker(folder, device="cuda", dtype=dtype) as reranker:
        assert reranker.info()["backend"] == "engine"
        found = reranker.score("copy a tree", documents)
        pairs = reranker.score_pairs([("copy a tree", document) for document in documents[:7]] + [("other", "x")])
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        ids = [tokenizer.encode(reranker.render("copy a tree", text).text).ids for text in documents]
    kind = AutoModelForSequenceClassification if scoring == "label" else AutoModelForCausalLM
    model = kind.from_pretrained(folder, dtype=torch.float32).eval().to("cuda")
    with torch.inference_mode():
        logits = [model(input_ids=torch.tensor([row], device="cuda")).logits for row in ids]
    if scoring == "label":
        odds = torch.stack([one[0, 0] for one in logits])
    else:
        yes, no = (tokenizer.token_to_id(word) for word in ("yes", "no"))
        odds = torch.stack([one[0, -1, yes] - one[0, -1, no] for one in logits])
    expected = odds.float().sigmoid().cpu().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4 if dtype == "float32" else 0.05)
    np.testing.assert_allclose(pairs[:7], found[:7], atol=1e-5 if dtype == "float32" else 0.03)


@pytest.mark.parametrize("dtype", FORMATS)
def test_one_kernel_runs_the_attention_of_a_whole_batch(
    qwen3: Path, dtype: str, opened, kernel_calls: list[int]
) -> None:
    embedder = opened(qwen3, dtype).load()
    kernel_calls.clear()
    texts = texts_of([5, 300, 7])
    embedder.embed_documents(texts)
    layers = json.loads((qwen3 / "config.json").read_text("utf-8"))["num_hidden_layers"]
    assert len(kernel_calls) == layers
    # The last layer asks for the last tokens only.
    assert kernel_calls[-1] == len(texts)


def test_windows_in_float32(long: Callable[[str], Path], other_folder: Path, opened, kernel_calls: list[int]) -> None:
    """No kernel has them: layers with a window run group by group where a text is longer than it."""
    shutil.copytree(long("gemma"), other_folder)
    edit(other_folder / "config.json", sliding_window=128)
    embedder = opened(other_folder).load()
    kernel_calls.clear()
    embedder.embed_documents(["a"])
    short = len(kernel_calls)
    embedder.embed_documents([digits(300)])
    full = len(kernel_calls) - short
    assert 0 < full < short
    # Of a batch with both, the short ones.
    embedder.embed_documents(["a", digits(300)])
    assert len(kernel_calls) == 2 * short + full


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("wrong", ["raises", "is off"])
def test_a_kernel_that_does_not_agree_is_not_used(
    folder: Path, dtype: str, wrong: str, opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embrief.engine import varlen

    def faulty(q, *args):
        if wrong == "raises":
            raise RuntimeError("not built for this GPU")
        return q * 2

    texts = texts_of([5, 300, 7])
    expected = opened(folder, "float32").embed_documents(texts)
    everything = (torch.float32, torch.bfloat16)
    monkeypatch.setattr(varlen, "KERNELS", (varlen.Kernel(faulty, everything, windows=True),))
    varlen._first_that_agrees.cache_clear()
    try:
        # A copy: of the same folder, the model that is loaded would be taken.
        found = opened(Path(shutil.copytree(folder, tmp_path / "own")), dtype).embed_documents(texts)
    finally:
        varlen._first_that_agrees.cache_clear()
    assert cosines(found, expected).min() >= (0.99999 if dtype == "float32" else 0.98)


def test_two_threads_at_once(qwen3: Path, opened) -> None:
    embedder = opened(qwen3, "bfloat16")
    texts = texts_of([5, 300, 7, 60])
    expected = embedder.embed_documents(texts), embedder.embed_queries(texts)
    found: dict[int, np.ndarray] = {}

    def work(number: int) -> None:
        for _ in range(5):
            found[number] = (embedder.embed_queries if number % 2 else embedder.embed_documents)(texts)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANGS)
    for number in range(4):
        assert cosines(found[number], expected[number % 2]).min() >= 0.999


def test_the_event_loop_turns_while_the_gpu_works(qwen3: Path, opened) -> None:
    embedder = opened(qwen3, "bfloat16")

    async def main() -> tuple[np.ndarray, int]:
        call = asyncio.ensure_future(embedder.aembed_documents([f"{digits(300)}{number}" for number in range(1500)]))
        turns = 0
        while not call.done():
            turns += 1
            await asyncio.sleep(0.001)
        return await call, turns

    found, turns = asyncio.run(main())
    assert found.shape[0] == 1500
    assert turns >= 20


def held() -> int:
    gc.collect()
    torch.cuda.synchronize()
    return torch.cuda.memory_allocated()


def test_closing_frees_the_memory(qwen3: Path, tmp_path: Path) -> None:
    torch.zeros(1, device="cuda")
    before = held()
    with Embedder(shutil.copytree(qwen3, tmp_path / "own"), dtype="bfloat16", device="cuda") as embedder:
        embedder.embed_queries(texts_of([5, 300]))
        assert held() > before
    from embrief.serving import scheduler

    # Closing never waits.
    for worker in list(scheduler._closing):
        worker._freed.wait(HANGS)
    # cuBLAS keeps a workspace.
    assert held() - before <= 64 * 2**20


def test_a_batch_that_is_too_large_is_halved_for_good(
    qwen3: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = [f"{digits(60)}{number}" for number in range(1000)]
    folder = shutil.copytree(qwen3, tmp_path / "own")
    total = torch.cuda.get_device_properties(0).total_memory
    with Embedder(folder, dtype="bfloat16", device="cuda", batch_tokens=65536) as embedder:
        expected = embedder.embed_documents(texts[:100])
        gc.collect()
        torch.cuda.empty_cache()
        room = torch.cuda.memory_reserved() + 24 * 2**20
        torch.cuda.set_per_process_memory_fraction(room / total)
        try:
            with caplog.at_level(logging.WARNING, "embrief"):
                found = embedder.embed_documents(texts)
                told = [record for record in caplog.records if "memory ran out" in record.getMessage()]
                assert told
                assert embedder.info()["batch_tokens"] < 65536
                caplog.clear()
                again = embedder.embed_documents(texts)
                assert not [record for record in caplog.records if "memory ran out" in record.getMessage()]
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
    assert cosines(found[:100], expected).min() >= 0.999
    assert cosines(found, again).min() >= 0.999


def test_devices_by_name(qwen3: Path, opened) -> None:
    assert opened(qwen3, device="cuda").load().info()["device"] == "cuda:0"
    assert opened(qwen3, device="cuda:0").load().info()["device"] == "cuda:0"
    assert opened(qwen3, "auto", "auto").load().info()["device"] == "cuda:0"
    absent = f"cuda:{torch.cuda.device_count() + 6}"
    with pytest.raises(ArgumentError, match=rf"{absent}.* is not there"):
        opened(qwen3, device=absent).load()
    with pytest.raises(ArgumentError, match=r"int8.* runs on the CPU only, not on cuda:0"):
        opened(qwen3, "int8", "cuda").load()


def test_a_pickle_goes_back_to_the_gpu(qwen3: Path, opened) -> None:
    embedder = opened(qwen3, "bfloat16").load()
    data = pickle.dumps(embedder)
    assert len(data) < 10_000
    again = pickle.loads(data)
    assert again.load().info()["device"] == "cuda:0"
    assert cosines(again.embed_queries(["a", "b"]), embedder.embed_queries(["a", "b"])).min() >= 0.9999


def _in_child(embedder: Embedder, results) -> None:
    try:
        embedder.embed_documents(["a"])
    except Exception as error:
        results.send((type(error), str(error)))
    else:
        results.send((None, ""))


@pytest.mark.parametrize("loaded", ["loaded before", "loaded after"])
def test_a_forked_child_is_told_to_spawn(qwen3: Path, loaded: str, opened) -> None:
    embedder = opened(qwen3, "bfloat16")
    other = opened(qwen3, "float32")
    other.embed_documents(["b"])
    if loaded == "loaded before":
        embedder.embed_documents(["b"])
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_in_child, args=(embedder, there))
    child.start()
    assert here.poll(HANGS)
    kind, message = here.recv()
    child.join(HANGS)
    assert child.exitcode == 0
    assert issubclass(kind, BackendError)
    assert "forked" in message
    assert "spawn" in message
    # The parent goes on.
    assert embedder.embed_documents(["a"]).shape == (1, 48)


def test_the_other_runtime_gives_the_same(qwen3: Path, opened) -> None:
    texts = texts_of([5, 300, 7])
    with Embedder(qwen3, device="cuda", dtype="float32", backend="sentence-transformers") as other:
        assert other.load().info()["device"] == "cuda:0"
        assert cosines(opened(qwen3).embed_documents(texts), other.embed_documents(texts)).min() >= 0.99999
