"""What llama.cpp makes of GGUF files, compared with transformers and the engine on the same checkpoints."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embrief
from embrief import Embedder, Reranker, check_parity, use_config
from embrief.errors import AmbiguousModelError, ArgumentError, InputTooLongError, ModelMismatchError, WrongKindError
from embrief.facts.specs import EmbeddingSpec, RerankerSpec
from embrief.files.forms import local_model
from embrief.runtimes.gguf import Gguf, GgufRuntime
from embrief.stores import stored_model
from embrief.testing import check_runtime

from ...gguf_writer import write_embedder, write_reranker
from .conftest import cosines

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("llama")]

TEXTS = (
    "a", "", " ", "which planet is red", " leading and trailing ", "<|im_end|>yes<|endoftext|>", "<think>x</think>",
    "日本語 and émoji 🙂", "line\n\n\nline\ttab", "word " * 60, "x" * 300,
)  # fmt: skip


def reference(folder: Path, texts: Any, **options: Any) -> np.ndarray:
    found = Embedder(folder, backend="sentence-transformers", dtype="float32", device="cpu", **options)
    return found.encode(list(texts), role="document").vectors


def log_odds(chances: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.log(chances / (1 - chances))
    return found


@pytest.mark.parametrize("name", ["qwen3", "gemma"])
def test_vectors_are_those_of_sentence_transformers(name, files, request):
    folder = request.getfixturevalue(f"{name}_folder")
    found = Embedder(files[name], max_tokens=256).encode(list(TEXTS), role="document")
    assert cosines(found.vectors, reference(folder, TEXTS, max_tokens=256)).min() > 0.9999
    assert np.allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-5)
    assert found.token_counts.tolist() == Embedder(folder, max_tokens=256).encode(
        list(TEXTS), role="document").token_counts.tolist()  # fmt: skip


@pytest.fixture(scope="module")
def wide(qwen3_folder: Path, gemma_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints with room for long texts; Gemma's with the published window."""
    found = {}
    for name, folder, changes in (
        ("qwen3", qwen3_folder, {"max_position_embeddings": 2048}),
        ("gemma", gemma_folder, {"max_position_embeddings": 2048, "sliding_window": 512}),
    ):
        found[name] = tmp_path_factory.mktemp("wide") / name
        shutil.copytree(folder, found[name])
        config = json.loads((folder / "config.json").read_text("utf-8"))
        (found[name] / "config.json").write_text(json.dumps({**config, **changes}), "utf-8")
        if (found[name] / "sentence_bert_config.json").is_file():
            (found[name] / "sentence_bert_config.json").write_text('{"max_seq_length": 2048}', "utf-8")
    return found


@pytest.mark.parametrize("name", ["qwen3", "gemma"])
def test_long_texts_too_beyond_the_window_and_the_usual_batch(name, wide, tmp_path):
    file = write_embedder(wide[name], tmp_path / "long.gguf")
    texts = [" ".join(str(n * step % 97) for n in range(count)) for count, step in
             ((120, 1), (150, 3), (250, 5), (270, 7), (450, 11), (560, 13), (640, 17))]  # fmt: skip
    embedder = Embedder(file, max_tokens=2048)
    found = embedder.encode(texts, role="document")
    assert found.token_counts.max() > 1700
    assert (found.token_counts > 512).sum() > 2
    assert not found.truncated.any()
    assert cosines(found.vectors, reference(wide[name], texts, max_tokens=2048)).min() > 0.9999


@pytest.mark.parametrize("name", ["qwen3", "gemma"])
def test_batch_single_and_shuffled_are_the_same(name, files):
    embedder = Embedder(files[name], max_tokens=256)
    together = embedder.encode(list(TEXTS), role="document").vectors
    backwards = embedder.encode(list(TEXTS[::-1]), role="document").vectors[::-1]
    alone = np.stack([embedder.encode([text], role="document").vectors[0] for text in TEXTS])
    assert cosines(together, alone).min() > 0.99999
    assert cosines(together, backwards).min() > 0.99999


@pytest.mark.parametrize("name", ["qwen3", "gemma"])
def test_a_text_is_cut_before_its_end_token(name, files, request):
    long = "one two three four five " * 100
    folder = request.getfixturevalue(f"{name}_folder")
    embedder = Embedder(files[name], max_tokens=80, truncate="silent")
    expected = Embedder(folder, backend="engine", dtype="float32", device="cpu", max_tokens=80, truncate="silent")
    for role in ("query", "document"):
        found = embedder.encode([long], role=role)
        assert found.truncated.all()
        assert cosines(found.vectors, expected.encode([long], role=role).vectors).min() > 0.9999
    with pytest.raises(InputTooLongError):
        Embedder(files[name], max_tokens=80, truncate="error").encode([long], role="document")


def test_shorter_vectors_are_cut_and_normalised_by_the_core(files):
    embedder = Embedder(files["qwen3"])
    whole = embedder.encode(["x"], role="query").vectors
    short = Embedder(files["qwen3"], dim=32).encode(["x"], role="query").vectors
    assert np.allclose(short, whole[:, :32] / np.linalg.norm(whole[:, :32]), atol=1e-6)


def test_a_file_is_a_model_of_its_own_and_known_by_its_content(files, tmp_path):
    copy = Path(shutil.copy(files["qwen3"], tmp_path / "other name.gguf"))
    one, other = Embedder(files["qwen3"]), Embedder(f"gguf:{copy}")
    assert one.space.model == "local"
    assert one.space.id == other.space.id
    assert one.info()["prompts_from"] == "family"
    assert one.info()["query_prompt"].startswith("Instruct: ")
    content = bytearray(copy.read_bytes())
    content[-200] ^= 1
    copy.write_bytes(content)
    assert Embedder(copy).space.id != one.space.id


def test_llama_quantize_makes_files_that_run(llama, tmp_path, corpus):
    """Random weights of so few values move more than trained ones: a number to keep, not to promise."""
    if llama is None:
        pytest.skip("llama.cpp is not built here: make llama")
    from transformers import Qwen3Model

    from ...conftest import QWEN_SPECIALS, qwen3_config, randomize_norms, save_tokenizer, train_tokenizer, write_modules

    folder = tmp_path / "wider"
    tokenizer = train_tokenizer(corpus, end="<|endoftext|>", specials=QWEN_SPECIALS)
    save_tokenizer(tokenizer, folder, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=1024)
    model = Qwen3Model(qwen3_config(tokenizer.get_vocab_size(), hidden_size=64, intermediate_size=128))
    randomize_norms(model)
    model.save_pretrained(folder)
    write_modules(folder, "lasttoken", 64)
    models = tmp_path / "files"
    models.mkdir()
    whole = write_embedder(folder, models / "m-F32.gguf")
    subprocess.run(
        [llama / "bin" / "llama-quantize", whole, models / "m-Q8_0.gguf", "Q8_0"], check=True, capture_output=True
    )
    expected = reference(folder, TEXTS, max_tokens=256)
    embedder = Embedder(models / "m-Q8_0.gguf", max_tokens=256)
    found = embedder.encode(list(TEXTS), role="document").vectors
    assert embedder.info()["dtype"] == "q8_0"
    assert 0.99 < cosines(found, expected).min() < 0.99999
    # The folder holds both: the finest by itself, the other by name.
    assert Embedder(models).info()["dtype"] == "float32"
    assert Embedder(models, dtype="q8_0").info()["dtype"] == "q8_0"
    assert Embedder(models, dtype="q8_0").space.id == embedder.space.id
    with pytest.raises(ArgumentError, match="q4_k_m"):
        Embedder(models, dtype="q4_k_m").info()
    subprocess.run(
        [llama / "bin" / "llama-quantize", "--pure", whole, models / "m-Q4_0.gguf", "Q4_0"],
        check=True, capture_output=True,
    )  # fmt: skip
    (models / "m-F32.gguf").unlink()
    (models / "m-Q8_0.gguf").unlink()
    Path(shutil.copy(models / "m-Q4_0.gguf", models / "m-Q5_0.gguf"))
    with pytest.raises(ArgumentError, match=r"less than 8 bits.*q4_0, q5_0"):
        Embedder(models).info()
    assert Embedder(models / "m-Q4_0.gguf").info()["dtype"] == "q4_0"
    with pytest.raises(ModelMismatchError, match="is in q4_0 and not in q5_0"):
        Embedder(models, dtype="q5_0").encode(["x"], role="query")


@pytest.mark.parametrize("name", ["reranker", "ranker"])
def test_scores_are_those_of_transformers_with_any_instruction(name, files, reranker_file_folder):
    """A language model by its logits; a converted ranker by its own head, of which one row is yes and one no."""
    for instruction in (None, "find what contradicts the query"):
        found = log_odds(Reranker(files[name]).score("which planet", list(TEXTS), instruction=instruction))
        reranker = Reranker(reranker_file_folder, backend="sentence-transformers", dtype="float32", device="cpu")
        expected = log_odds(reranker.score("which planet", list(TEXTS), instruction=instruction))
        assert np.abs(found - expected).max() < 1e-4
        assert np.ptp(expected) > 0.1


def test_a_query_that_looks_like_a_template_is_a_query(files):
    reranker = Reranker(files["ranker"])
    assert abs(reranker.score("{document}", ["a"]) - reranker.score("a", ["a"]))[0] > 1e-4


def test_an_end_token_that_is_not_said_or_said_wrongly_is_appended_all_the_same(qwen3_folder, tmp_path):
    expected = reference(qwen3_folder, TEXTS, max_tokens=256)
    plain = write_embedder(qwen3_folder, tmp_path / "plain.gguf", adds_end=False)
    assert (
        cosines(Embedder(plain, max_tokens=256).encode(list(TEXTS), role="document").vectors, expected).min() > 0.9999
    )

    def wrong(facts, tensors):
        facts["tokenizer.ggml.eos_token_id"] = 2

    other = write_embedder(qwen3_folder, tmp_path / "other.gguf", change=wrong)
    assert (
        cosines(Embedder(other, max_tokens=256).encode(list(TEXTS), role="document").vectors, expected).min() > 0.9999
    )


def test_another_pooling_is_refused_and_run_right_where_somebody_says_which_model_it_is(
    qwen3_folder, qwen3_model, tmp_path
):
    file = write_embedder(qwen3_folder, tmp_path / "mean.gguf", pooling="mean")
    with pytest.raises(ModelMismatchError, match=r"says the pooling 'mean'.*like="):
        Embedder(file).info()
    expected = reference(qwen3_folder, TEXTS, max_tokens=256)
    for embedder in (
        Embedder(file, like="Qwen/Qwen3-Embedding-0.6B", max_tokens=256),
        Embedder(qwen3_model, backend=Gguf(file=str(file)), max_tokens=256),
    ):
        assert cosines(embedder.encode(list(TEXTS), role="document").vectors, expected).min() > 0.9999


def test_a_file_that_says_nothing_is_ambiguous(qwen3_folder, tmp_path):
    def silent(facts, tensors):
        del facts["qwen3.pooling_type"]

    file = write_embedder(qwen3_folder, tmp_path / "silent.gguf", adds_end=False, change=silent)
    with pytest.raises(AmbiguousModelError, match="like="):
        Embedder(file).info()
    assert Embedder(file, like="Qwen/Qwen3-Embedding-0.6B").encode(["x"], role="query").vectors.shape == (1, 48)


def test_gemma_without_its_dense_layers_is_refused(gemma_folder, tmp_path):
    file = write_embedder(gemma_folder, tmp_path / "flat.gguf", dense=False)
    with pytest.raises(ModelMismatchError, match=r"lacks dense_2.weight.*--sentence-transformers-dense-modules"):
        Embedder(file).encode(["x"], role="query")


def test_kinds_are_told_apart(files):
    with pytest.raises(WrongKindError, match="Reranker"):
        Embedder(files["ranker"]).info()
    for name in ("qwen3", "gemma"):
        with pytest.raises(WrongKindError, match="Embedder"):
            Reranker(files[name]).info()


def test_a_score_head_with_other_labels_is_refused(reranker_file_folder, tmp_path):
    def swapped(facts, tensors):
        facts["qwen3.classifier.output_labels"] = ["no", "yes"]

    file = write_reranker(reranker_file_folder, tmp_path / "swapped.gguf", change=swapped)
    with pytest.raises(ModelMismatchError, match="labels"):
        Reranker(file).score("q", ["d"])


@pytest.mark.parametrize(
    ("fact", "value", "told"),
    [
        ("tokenizer.ggml.pre", "llama-bpe", "reads texts as 'gpt2' with 'llama-bpe'"),
        ("tokenizer.ggml.model", "bert", "reads texts as 'bert'"),
        ("general.architecture", "bert", "architecture 'bert'"),
        ("qwen3.attention.causal", False, "causal attention is False, due is True"),
    ],
)
def test_another_tokenizer_or_architecture_is_refused(fact, value, told, qwen3_folder, tmp_path):
    def other(facts, tensors):
        facts[fact] = value

    file = write_embedder(qwen3_folder, tmp_path / "other.gguf", change=other)
    with pytest.raises(ModelMismatchError, match=told):
        Embedder(file).encode(["x"], role="query")


def test_a_declared_file_has_the_space_of_its_record(qwen3_model, files, qwen3_folder, gemma_folder):
    spec = embrief.plugins().catalog.models[qwen3_model]
    embedder = Embedder(qwen3_model, backend=Gguf(file=str(files["qwen3"])))
    assert (embedder.space.model, embedder.space.weights) == (qwen3_model, spec.revision)
    assert embedder.info()["recorded"]
    found = embedder.encode(["x", "y"], role="document").vectors
    assert cosines(found, reference(qwen3_folder, ["x", "y"])).min() > 0.9999
    for other, told in ((files["gemma"], "architecture"), (Path("/nowhere/x.gguf"), "no file")):
        with pytest.raises(ArgumentError, match=told):
            Embedder(qwen3_model, backend=Gguf(file=str(other))).info()
    with pytest.raises(ArgumentError, match="width"):
        Embedder("Qwen/Qwen3-Embedding-0.6B", backend=Gguf(file=str(files["qwen3"]))).info()


def test_the_vocabulary_is_compared_with_the_published_one_where_it_is_here(
    qwen3_model, files, qwen3_folder, tmp_path, monkeypatch
):
    spec = embrief.plugins().catalog.models[qwen3_model]
    snapshot = tmp_path / f"models--{qwen3_model.replace('/', '--')}" / "snapshots" / spec.revision
    snapshot.mkdir(parents=True)
    tokenizer = json.loads((qwen3_folder / "tokenizer.json").read_text("utf-8"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    (snapshot / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    Embedder(qwen3_model, backend=Gguf(file=str(files["qwen3"]), threads=1)).load()
    merges = tokenizer["model"]["merges"]
    merges[0], merges[1] = merges[1], merges[0]
    (snapshot / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    with pytest.raises(ModelMismatchError, match="other merges"):
        Embedder(qwen3_model, backend=Gguf(file=str(files["qwen3"]), threads=2)).load()


def test_the_contract_of_runtimes_is_kept(files):
    catalog = embrief.plugins().catalog
    for name in ("qwen3", "gemma"):
        spec = local_model(files[name]).embedder(lambda a: catalog.family(a, EmbeddingSpec), None)
        check_runtime(GgufRuntime(), spec, folder=files[name].parent)
    for name in ("reranker", "ranker"):
        found = local_model(files[name]).reranker(lambda a: catalog.family(a, RerankerSpec), None)
        check_runtime(GgufRuntime(), found, folder=files[name].parent)


def test_parity_with_the_engine(qwen3_model, files, qwen3_folder):
    report = check_parity(
        Embedder(qwen3_model, backend=Gguf(file=str(files["qwen3"]))),
        Embedder(qwen3_folder, backend="engine", dtype="float32", device="cpu", like=None),
    )
    assert report.verdict == "equal", report


def test_pickles_find_the_file_again(files):
    embedder = Embedder(files["qwen3"])
    assert pickle.loads(pickle.dumps(embedder)).space.id == embedder.space.id


def test_a_store_never_names_a_file(files):
    for name in (f"gguf:{files['qwen3']}", str(files["qwen3"])):
        with pytest.raises(ArgumentError, match="only be the id of a recorded model"):
            stored_model(name, None, where="a collection")


def test_threads_of_the_caller_share_one_process(files):
    embedder = Embedder(files["qwen3"])
    expected = embedder.encode(["a", "b"], role="document").vectors
    found: list[np.ndarray] = []

    def ask() -> None:
        found.extend(embedder.encode(["a", "b"], role="document").vectors for _ in range(20))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 40
    assert all(cosines(vectors, expected).min() > 0.99999 for vectors in found)


def test_a_gpu_that_the_library_does_not_use_is_refused(files):
    with pytest.raises(ArgumentError, match=r"device='(cuda|mps)' is not there.*CMAKE_ARGS"):
        Embedder(files["qwen3"], device="cuda").info()
    assert Embedder(files["qwen3"], device="auto").info()["device"] == "cpu"


@pytest.mark.parametrize(
    "wrong", [{"process": "thread"}, {"threads": 0}, {"threads": True}, {"gpu_layers": -1}, {"file": 3}]
)
def test_options_that_cannot_be_are_refused(wrong):
    with pytest.raises((ArgumentError, embrief.ArgumentTypeError)):
        Gguf(**wrong)


def test_a_relative_path_is_of_the_folder_where_it_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = Gguf(file="model.gguf")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert one.file == str(tmp_path / "model.gguf")
    assert one != Gguf(file="model.gguf")


@pytest.mark.parametrize("name", ["model-UD-Q4_K_XL.gguf", "model-Q8_0.gguf"])
def test_one_file_is_in_the_format_that_it_is_in_whatever_its_name_says(name, files, tmp_path):
    file = shutil.copy(files["qwen3"], tmp_path / name)
    embedder = Embedder(file)
    assert embedder.info()["dtype"] == "float32"
    assert embedder.encode(["x"], role="query").vectors.shape == (1, 48)
    with pytest.raises(ArgumentError, match="has no q8_0 of it; there are float32"):
        Embedder(file, dtype="q8_0")


def test_two_files_in_one_format_are_two_models(files, tmp_path):
    for name in ("one-Q8_0.gguf", "other-Q8_0.gguf"):
        shutil.copy(files["qwen3"], tmp_path / name)
    with pytest.raises(ArgumentError, match=r"more than one GGUF file in q8_0 \(one-Q8_0.gguf, other-Q8_0.gguf\)"):
        Embedder(f"gguf:{tmp_path}")


def test_a_configured_name_may_mean_a_file_from_the_folder_of_the_configuration(files, tmp_path, monkeypatch):
    shutil.copy(files["qwen3"], tmp_path / "mine.gguf")
    config = tmp_path / "embrief.yaml"
    config.write_text("models:\n  mine:\n    provider: native\n    model_id: gguf:mine.gguf\n", "utf-8")
    monkeypatch.setenv("EMBRIEF_CONFIG", str(config))
    use_config(None)
    try:
        assert Embedder("mine").space.id == Embedder(files["qwen3"]).space.id
    finally:
        monkeypatch.setenv("EMBRIEF_CONFIG", "")
        use_config(None)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("gguf:", "names no model"),
        ("gguf:/nowhere.gguf", "no GGUF file or folder"),
        ("gguf:http://x", "names no model"),
    ],
)
def test_a_reference_that_means_no_file_is_refused(name, told):
    with pytest.raises((ArgumentError, embrief.UnknownModelError), match=told):
        Embedder(name)


def test_a_reference_with_a_recorded_name_means_the_files_that_its_record_names(qwen3_folder):
    info = Embedder("gguf:Qwen/Qwen3-Embedding-0.6B", dtype="q8_0", device="cpu").info()
    assert (info["backend"], info["dtype"]) == ("gguf", "q8_0")
    assert info["artifact"] == "Qwen/Qwen3-Embedding-0.6B-GGUF@main"
    assert info["revision"] == embrief.plugins().catalog.models["Qwen/Qwen3-Embedding-0.6B"].revision
    assert Embedder("gguf:Qwen/Qwen3-Embedding-8B", device="cpu").info()["dtype"] == "q8_0"
    with pytest.raises(ArgumentError, match="knows no GGUF file"):
        Reranker("gguf:Qwen/Qwen3-Reranker-0.6B")
    with pytest.raises(embrief.UnknownModelError, match="has no GGUF files, or has safetensors"):
        Embedder(f"gguf:{qwen3_folder}")


def test_parts_of_a_model_are_named_by_the_first(qwen3_folder, llama, files, tmp_path):
    """llama-gguf-split is not built here: the parts are written as it writes them."""

    def half(keep: bool):
        def change(facts, tensors):
            names = sorted(tensors)
            for place, name in enumerate(names):
                if (place < len(names) // 2) != keep:
                    del tensors[name]
            kept = dict(facts) if keep else {"general.architecture": "qwen3"}
            facts.clear()
            facts |= kept

        return change

    first = write_embedder(qwen3_folder, tmp_path / "m-00001-of-00002.gguf", change=half(True))
    with pytest.raises(embrief.WeightsUnavailableError, match="lacks its parts m-00002-of-00002"):
        Embedder(first)
    second = write_embedder(qwen3_folder, tmp_path / "m-00002-of-00002.gguf", change=half(False))
    with pytest.raises(embrief.WeightsUnavailableError, match="part 2 of 2; pass the first"):
        Embedder(second)
    assert Embedder(first).info()["dtype"] == "float32"
