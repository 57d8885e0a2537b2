"""mistral.rs in this process: the vectors of transformers, on files and texts where it would give others by itself."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import embrief
from embrief import (
    ArgumentError,
    BackendError,
    Embedder,
    EmbriefError,
    InputTooLongError,
    LoadRequest,
    ModelMismatchError,
    Rendered,
    RunOptions,
)
from embrief.errors import NonFiniteVectorError
from embrief.runtimes import mistralrs as runtime
from embrief.testing import check_runtime

HERE = embrief.plugins().catalog.backends["mistralrs"]
# What `.ci/skips.txt` has a line for.
pytestmark = pytest.mark.skipif(bool(HERE.missing()), reason="mistralrs is not installed")

TEXTS = [
    "",
    "x",
    "x",
    " leading",
    "trailing  \n",
    "<|endoftext|> and <eos> <bos> in a text",
    "日本語 and émoji 🙂",
    "word " * 60,
    "a few words more " * 9,
    "123 " * 50,
]
WINDOW = 257
"""What EmbeddingGemma's 512 comes to: a token sees those less than this many places away."""


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one.astype(np.float64) * other).sum(1)


def oracle(folder: Path, **settings: object) -> Embedder:
    return Embedder(str(folder), backend="sentence-transformers", device="cpu", dtype="float32", **settings)


def ours(folder: Path, dtype: str = "float32", **settings: object) -> Embedder:
    return Embedder(str(folder), backend="mistralrs", dtype=dtype, **settings)


def copied(folder: Path, place: Path) -> Path:
    return Path(shutil.copytree(folder, place / "model"))


def edit(file: Path, **changes: object) -> None:
    """Change a JSON file; `...` takes a key out."""
    found = {**json.loads(file.read_text("utf-8")), **changes}
    file.write_text(json.dumps({key: value for key, value in found.items() if value is not ...}), "utf-8")


def edit_tensors(file: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def in_process(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "RUST_LOG"} | variables
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=environment)


@pytest.fixture(params=["qwen3_folder", "gemma_folder"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def long_gemma(gemma_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small Gemma with the published window."""
    place = copied(gemma_folder, tmp_path_factory.mktemp("long"))
    edit(place / "config.json", sliding_window=512, max_position_embeddings=2048)
    edit(place / "sentence_bert_config.json", max_seq_length=2048)
    return place


@pytest.fixture(scope="session")
def wide_folder(qwen3_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Widths that the blocks of all quantised formats divide."""
    import torch
    from transformers import Qwen3Config, Qwen3Model

    place = copied(qwen3_folder, tmp_path_factory.mktemp("wide"))
    config = Qwen3Config.from_pretrained(place)
    config.hidden_size, config.intermediate_size, config.head_dim = 256, 512, 64
    torch.manual_seed(4)
    model = Qwen3Model(config)
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=0.06)
    model.to(torch.bfloat16).save_pretrained(place)
    edit(place / "1_Pooling" / "config.json", word_embedding_dimension=256)
    return place


def test_the_contract_is_kept(folder: Path) -> None:
    check_runtime(HERE, Embedder(str(folder)).spec, folder=folder)


@pytest.mark.parametrize("role", ["embed_documents", "embed_queries"])
def test_vectors_are_those_of_sentence_transformers(folder: Path, role: str) -> None:
    here, there = ours(folder), oracle(folder)
    vectors = getattr(here, role)(TEXTS)
    assert cosines(vectors, getattr(there, role)(TEXTS)).min() > 0.9999
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert here.space == there.space
    assert (here.info()["backend"], here.info()["device"], here.info()["dtype"]) == ("mistralrs", "cpu", "float32")


def test_bases_of_rotary_positions_are_read_where_transformers_writes_them(folder: Path, tmp_path: Path) -> None:
    place = copied(folder, tmp_path)
    config = json.loads((place / "config.json").read_text("utf-8"))
    other = {"rope_theta": 500.0, "rope_type": "default"}
    each = {"full_attention": other, "sliding_attention": {**other, "rope_theta": 70.0}}
    edit(place / "config.json", rope_parameters=each if config["model_type"] == "gemma3_text" else other)
    vectors = ours(place).embed_documents(TEXTS)
    assert cosines(vectors, oracle(place).embed_documents(TEXTS)).min() > 0.9999
    assert cosines(vectors, ours(folder).embed_documents(TEXTS)).min() < 0.999


@pytest.mark.parametrize("count", [WINDOW - 1, WINDOW, WINDOW + 1, 272, 512, 574, 1686])
def test_a_long_gemma_sees_no_further_than_its_window(long_gemma: Path, count: int) -> None:
    text = "".join(map(str, np.random.default_rng(count).integers(0, 10, count - 20)))
    vectors = ours(long_gemma).embed_documents([text])
    assert cosines(vectors, oracle(long_gemma).embed_documents([text])).min() > 0.9999


@pytest.mark.parametrize(
    "layer_types",
    [
        ["full_attention"] * 7,
        ["sliding_attention"] * 7,
        [*["sliding_attention", "full_attention"] * 3, "sliding_attention"],
    ],
    ids=["all whole", "all windows", "every second"],
)
def test_other_patterns_of_windows(gemma_folder: Path, tmp_path: Path, layer_types: list[str]) -> None:
    place = copied(gemma_folder, tmp_path)
    edit(place / "config.json", layer_types=layer_types)
    assert cosines(ours(place).embed_documents(TEXTS), oracle(place).embed_documents(TEXTS)).min() > 0.9999


def test_a_cut_text_keeps_its_final_token(folder: Path) -> None:
    texts = ["one two three " * 40, "short"]
    settings = {"max_tokens": 32, "truncate": "silent"}
    vectors = ours(folder, **settings).embed_documents(texts)
    assert cosines(vectors, oracle(folder, **settings).embed_documents(texts)).min() > 0.9999
    with pytest.raises(InputTooLongError, match="index 0 has"):
        ours(folder, max_tokens=32, truncate="error").embed_documents(texts)


def test_newer_words_of_the_pooling(folder: Path, tmp_path: Path) -> None:
    place = copied(folder, tmp_path)
    mode = "lasttoken" if "qwen" in folder.name else "mean"
    file = place / "1_Pooling" / "config.json"
    file.write_text(json.dumps({"embedding_dimension": 48, "pooling_mode": mode, "include_prompt": True}), "utf-8")
    assert cosines(ours(place).embed_documents(TEXTS), ours(folder).embed_documents(TEXTS)).min() > 0.9999


def test_without_the_last_module_vectors_have_length_one_all_the_same(gemma_folder: Path, tmp_path: Path) -> None:
    place = copied(gemma_folder, tmp_path)
    modules = json.loads((place / "modules.json").read_text("utf-8"))
    (place / "modules.json").write_text(json.dumps(modules[:-1]), "utf-8")
    assert cosines(ours(place).embed_documents(TEXTS), oracle(place).embed_documents(TEXTS)).min() > 0.9999
    with pytest.raises(ArgumentError, match="normalize"):
        ours(place, normalize=False).embed_documents(["a"])


def test_weights_in_several_files(wide_folder: Path, tmp_path: Path) -> None:
    from transformers import Qwen3Model

    place = copied(wide_folder, tmp_path)
    (place / "model.safetensors").unlink()
    Qwen3Model.from_pretrained(wide_folder).save_pretrained(place, max_shard_size="2MB")
    shards = sorted(file.name for file in place.glob("*.safetensors"))
    assert len(shards) > 1
    # Their names are nobody's rule: the index says them.
    index = place / "model.safetensors.index.json"
    for number, name in enumerate(shards):
        (place / name).rename(place / f"part{number}.safetensors")
        index.write_text(index.read_text("utf-8").replace(name, f"part{number}.safetensors"), "utf-8")
    assert cosines(ours(place).embed_documents(TEXTS), ours(wide_folder).embed_documents(TEXTS)).min() > 0.9999


@pytest.mark.parametrize(
    ("dtype", "least"),
    [("bfloat16", 0.999), ("float16", 0.999), ("q8_0", 0.99), ("hqq8", 0.99), ("afq8", 0.99), ("q4_0", 0.7)],
)
def test_number_formats(wide_folder: Path, dtype: str, least: float) -> None:
    here = ours(wide_folder, dtype)
    found = cosines(here.embed_documents(TEXTS), oracle(wide_folder).embed_documents(TEXTS)).min()
    assert least < found < 1 - 1e-7
    assert here.info()["dtype"] == dtype
    raw = runtime.MistralRs().load(LoadRequest(here.spec, wide_folder, "cpu", dtype))
    vectors = raw.run([Rendered("", "a text")], RunOptions(max_tokens=64)).array("dense")
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.slow
def test_every_listed_format_loads(wide_folder: Path) -> None:
    for dtype in HERE.dtypes:
        assert np.isfinite(ours(wide_folder, dtype).embed_documents(["a text"])).all()


def test_it_runs_where_it_is_named_and_nowhere_else(qwen3_folder: Path) -> None:
    assert Embedder(str(qwen3_folder)).info()["backend"] == "engine"
    others = [item for item in embrief.plugins().catalog.backends.values() if item is not HERE and item.devices]
    assert all(item.preference > HERE.preference for item in others)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"device": "cuda"}, "has no device='cuda'"), ({"dtype": "int8"}, "has no dtype='int8'")],
)
def test_what_the_wheel_has_not_is_refused(qwen3_folder: Path, settings: dict[str, str], said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        Embedder(str(qwen3_folder), backend="mistralrs", **settings).embed_documents(["a"])


def test_another_build_is_refused(qwen3_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "installed_version", lambda name: None)
    with pytest.raises(ArgumentError, match="mistralrs-cuda"):
        ours(qwen3_folder).embed_documents(["a"])


def test_no_rerankers_and_no_other_models(reranker_folder: Path, minilm_folder: Path, gemma2_text_folder: Path) -> None:
    with pytest.raises(ArgumentError, match="no rerankers"):
        embrief.Reranker(str(reranker_folder), backend="mistralrs")
    for other in (minilm_folder, gemma2_text_folder):
        with pytest.raises(ArgumentError, match="runs qwen3 and gemma3_text, not"):
            ours(other)


REFUSED: dict[str, tuple[str, str, dict[str, object], str]] = {
    "stretched positions": ("qwen3", "config.json", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "yarn"),
    "windows": ("qwen3", "config.json", {"use_sliding_window": True, "sliding_window": 4}, "sliding windows"),
    "a bias": ("qwen3", "config.json", {"attention_bias": True}, "attention_bias"),
    "an unknown key": ("qwen3", "config.json", {"surprise": 1}, "surprise"),
    "another activation": ("qwen3", "config.json", {"hidden_act": "relu"}, "relu"),
    "odd heads": ("qwen3", "config.json", {"head_dim": 15}, "heads of 15 values"),
    "heads without keys": ("qwen3", "config.json", {"num_key_value_heads": 0}, "with 0 of keys"),
    "heads that share no keys": ("qwen3", "config.json", {"num_key_value_heads": 3}, "with 3 of keys"),
    "no layers": ("gemma", "config.json", {"num_hidden_layers": 0, "layer_types": []}, "there are none"),
    "no positions": ("qwen3", "config.json", {"max_position_embeddings": ...}, "table of all positions"),
    "positions without end": ("qwen3", "config.json", {"max_position_embeddings": 10**12}, "table of all positions"),
    "first token": (
        "qwen3", "1_Pooling/config.json", {"pooling_mode_cls_token": True, "pooling_mode_lasttoken": False}, "'cls'"
    ),
    "prompt left out": ("qwen3", "1_Pooling/config.json", {"include_prompt": False}, "include_prompt"),
    "a generator": ("gemma", "config.json", {"use_bidirectional_attention": False}, "generator"),
    "capped products": ("gemma", "config.json", {"attn_logit_softcapping": 50.0}, "softcapping"),
    "half a scale": ("gemma", "config.json", {"query_pre_attn_scalar": 16.5}, "whole numbers"),
    "no scale": ("gemma", "config.json", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar|config.json"),
    "scattered windows": (
        "gemma", "config.json", {"layer_types": ["full_attention", "sliding_attention"] * 3 + ["full_attention"]},
        "every n-th",
    ),
    "bent Dense": (
        "gemma", "2_Dense/config.json", {"activation_function": "torch.nn.modules.activation.Tanh"},
        "Dense layer with Tanh",
    ),
    "Dense with a bias": ("gemma", "2_Dense/config.json", {"bias": True}, "Dense layer with a bias"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_it_would_skip_is_refused(case: str, qwen3_folder: Path, gemma_folder: Path, tmp_path: Path) -> None:
    kind, file, changes, said = REFUSED[case]
    place = copied({"qwen3": qwen3_folder, "gemma": gemma_folder}[kind], tmp_path)
    edit(place / file, **changes)
    with pytest.raises((ArgumentError, ModelMismatchError), match=said):
        ours(place).embed_documents(["a"])


def _without_one(tensors: dict[str, np.ndarray]) -> None:
    del tensors["layers.1.mlp.up_proj.weight"]


def _with_another(tensors: dict[str, np.ndarray]) -> None:
    tensors["layers.0.self_attn.q_proj.bias"] = np.zeros(64, np.float32)


def _with_a_prefix(tensors: dict[str, np.ndarray]) -> None:
    for name in [*tensors]:
        tensors[f"model.{name}"] = tensors.pop(name)


def _doubled(tensors: dict[str, np.ndarray]) -> None:
    tensors["layers.0.input_layernorm.weight"] = tensors["layers.0.input_layernorm.weight"].astype(np.float64)


def _narrower(tensors: dict[str, np.ndarray]) -> None:
    tensors["norm.weight"] = tensors["norm.weight"][:10].copy()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_without_one, "lack 1 tensors"),
        (_with_another, "q_proj.bias"),
        (_with_a_prefix, "have a prefix"),
        (_doubled, "stored as F64"),
        (_narrower, "has shape"),
    ],
)
def test_other_weights_than_it_reads_are_refused(qwen3_folder: Path, tmp_path: Path, change, said: str) -> None:
    place = copied(qwen3_folder, tmp_path)
    edit_tensors(place / "model.safetensors", change)
    with pytest.raises(ModelMismatchError, match=said):
        ours(place).embed_documents(["a"])


@pytest.mark.parametrize("size", [0, 3, 200, 20_000])
def test_files_that_are_cut_short(qwen3_folder: Path, tmp_path: Path, size: int) -> None:
    place = copied(qwen3_folder, tmp_path)
    for name in ("model.safetensors", "tokenizer.json"):
        whole = (qwen3_folder / name).read_bytes()
        (place / name).write_bytes(whole[:size])
        with pytest.raises(EmbriefError):
            ours(place).embed_documents(["a"])
        (place / name).write_bytes(whole)
    assert ours(place).embed_documents(["a"]).shape == (1, 48)


def test_numbers_that_are_none_blame_their_text(qwen3_folder: Path, tmp_path: Path) -> None:
    place = copied(qwen3_folder, tmp_path)

    def spoil(tensors: dict[str, np.ndarray]) -> None:
        # The row of one token only.
        tensors["embed_tokens.weight"] = tensors["embed_tokens.weight"].copy()
        tensors["embed_tokens.weight"][tokens_of(place, "7")] = np.nan

    edit_tensors(place / "model.safetensors", spoil)
    with pytest.raises(NonFiniteVectorError) as caught:
        ours(place).embed_documents(["fine", "7", "fine too"])
    assert caught.value.index == 1


def tokens_of(folder: Path, text: str) -> list[int]:
    from tokenizers import Tokenizer

    return list(Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text, add_special_tokens=False).ids)


def test_a_panic_is_an_error_of_ours(qwen3_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mistralrs

    class PanicException(BaseException):
        """As the one that comes out of Rust: no `Exception`."""

    class Panics:
        def __init__(self, **settings: object) -> None:
            raise PanicException("called `Option::unwrap()` on a `None` value\nand a trace")

    monkeypatch.setattr(mistralrs, "Runner", Panics)
    with pytest.raises(BackendError, match="failed to load tiny-qwen3-embedding: called `Option::unwrap") as caught:
        ours(qwen3_folder).embed_documents(["a"])
    assert "trace" not in str(caught.value)


def test_a_request_that_fails_is_an_error_of_ours(qwen3_folder: Path) -> None:
    from embrief.files.model_files import read_files

    runner = runtime.Runner(read_files(qwen3_folder), "tiny", pooling="last", dtype="float32")
    with pytest.raises(BackendError, match="failed to embed: "):
        runner.embed([np.array([10**6])])
    assert runner.embed([np.array([5, 0])]).shape == (1, 48)
    runner.close()


def test_nothing_stays_of_the_links(qwen3_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert ours(qwen3_folder).embed_documents(["a"]).shape == (1, 48)
    assert [*tmp_path.iterdir()] == []


def test_files_are_copied_where_there_are_no_links(qwen3_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    expected = ours(qwen3_folder).embed_documents(TEXTS)
    monkeypatch.setattr(Path, "symlink_to", refuse)
    monkeypatch.setattr(os, "link", refuse)
    # Another number format: a model that is loaded is not loaded again.
    found = ours(qwen3_folder, "bfloat16").embed_documents(TEXTS)
    assert cosines(found, expected).min() > 0.99


def test_it_prints_nothing_and_leaves_the_variables_alone(gemma_folder: Path) -> None:
    code = (
        "import os; before = dict(os.environ)\n"
        "import embrief\n"
        f"embrief.Embedder({str(gemma_folder)!r}, backend='mistralrs', dtype='q8_0').embed_documents(['a', 'b c'])\n"
        "assert dict(os.environ) == before"
    )
    done = in_process(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_it_needs_no_torch(gemma_folder: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'sentence_transformers', 'safetensors'): sys.modules[name] = None\n"
        "import embrief\n"
        f"print(embrief.Embedder({str(gemma_folder)!r}, backend='mistralrs').embed_documents(['a']).shape)"
    )
    done = in_process(code)
    assert (done.returncode, done.stdout.strip()) == (0, "(1, 48)"), done.stderr


def test_it_never_asks_the_network(gemma_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        code = (
            "import embrief\n"
            f"embrief.Embedder({str(gemma_folder)!r}, backend='mistralrs').embed_documents(['a'])"
        )  # fmt: skip
        done = in_process(
            code, HF_ENDPOINT=address, HTTPS_PROXY=address, HTTP_PROXY=address, ALL_PROXY=address, HF_HUB_OFFLINE="0"
        )
        assert done.returncode == 0, done.stderr
        with pytest.raises(TimeoutError):
            server.accept()


def test_two_models_on_several_threads(qwen3_folder: Path, gemma_folder: Path) -> None:
    models = [ours(place) for place in (qwen3_folder, gemma_folder)]
    expected = [model.embed_documents(TEXTS) for model in models]
    wrong: list[object] = []

    def work(number: int) -> None:
        for _ in range(5):
            if cosines(models[number % 2].embed_documents(TEXTS), expected[number % 2]).min() < 0.99999:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_is_refused_and_does_not_hang(qwen3_folder: Path, gemma_folder: Path) -> None:
    code = (
        "import os, embrief\n"
        f"old = embrief.Embedder({str(qwen3_folder)!r}, backend='mistralrs')\n"
        "old.embed_documents(['a'])\n"
        "child = os.fork()\n"
        "if not child:\n"
        f"    for model in (old, embrief.Embedder({str(gemma_folder)!r}, backend='mistralrs')):\n"
        "        try: model.embed_documents(['b'])\n"
        "        except embrief.BackendError as error: print('forked' in str(error), flush=True)\n"
        "        model.close()\n"
        "    raise SystemExit(3)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), old.embed_documents(['b']).shape)"
    )
    done = in_process(code)
    assert done.stdout.splitlines() == ["True", "True", "3 (1, 48)"], done.stderr


def test_the_end_of_the_process_waits_for_its_batch(qwen3_folder: Path) -> None:
    code = (
        "import embrief, threading\n"
        f"model = embrief.Embedder({str(qwen3_folder)!r}, backend='mistralrs')\n"
        "model.embed_documents(['a'])\n"
        "begun = threading.Event()\n"
        "def work():\n"
        "    while True:\n"
        "        begun.set()\n"
        "        model.embed_documents(['some words more ' * 60] * 40)\n"
        "threading.Thread(target=work, daemon=True).start()\n"
        "begun.wait()"
    )
    done = in_process(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_closed_model_gives_its_memory_back(qwen3_folder: Path, tmp_path: Path) -> None:
    """Its table of positions makes the small model large: 64 MB."""
    place = copied(qwen3_folder, tmp_path)
    edit(place / "config.json", max_position_embeddings=2**20)
    code = (
        "import embrief, time\n"
        "def held(): return int(open('/proc/self/statm').read().split()[1]) * 4096 / 1e6\n"
        "def once():\n"
        f"    with embrief.Embedder({str(place)!r}, backend='mistralrs') as model: model.embed_documents(['a'])\n"
        "once(); first = held()\n"
        "for _ in range(8): once()\n"
        "time.sleep(1)\n"
        "print(held() - first)"
    )
    done = in_process(code)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 150
