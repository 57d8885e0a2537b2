"""What a real Infinity does to a text and to a bad request, and what embrief makes of it.

payloads/infinity.json holds its answers for tests that cannot start it. To write the file anew:
EMBRIEF_RECORD=1 EMBRIEF_INFINITY=... python -m pytest tests/servers/test_infinity.py
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

pytest.importorskip("httpx")

from embrief import Embedder, Reranker, check_parity
from embrief.errors import BackendError, ModelMismatchError, TruncationWarning
from embrief.servers import OpenAI, RerankHttp

from .conftest import Record, StartInfinity
from .helpers import cosines
from .infinity import InfinityServer
from .recording import KEPT, Recorded, check, record, words

PAYLOADS = Path(__file__).parent / "payloads" / "infinity.json"
EMBEDDINGS, KEY = "/embeddings", "a-key-of-the-tests"
QWEN, BGE, RERANKER = "Qwen/Qwen3-Embedding-0.6B", "BAAI/bge-reranker-v2-m3", "Qwen/Qwen3-Reranker-0.6B"
LIMIT = 1600
ABOUT = {
    "software": "infinity-emb 0.0.78",
    "source": "recorded from that program with checkpoints of random weights (tests/conftest.py)",
    "shortened": f"every vector to its first {KEPT} values of 48, a long list of texts to its first {KEPT}; dates and "
    "numbers of answers are left out",
}


def roomy(folder: Path, target: Path, **changes: dict[str, Any]) -> Path:
    """A copy of a checkpoint that takes long texts, with other values in its files."""
    shutil.copytree(folder, target)
    changes = {"config": {}, **changes}
    changes["config"] |= {"max_position_embeddings": 4096}
    for name, values in changes.items():
        file = target / f"{name}.json"
        stored = json.loads(file.read_text("utf-8")) if file.is_file() else {}
        file.write_text(json.dumps(stored | values), "utf-8")
    return target


@pytest.fixture(scope="module")
def folders(
    qwen3_folder: Path, gemma_folder: Path, classifier_folder: Path, make_classified: Callable[[Path, int], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:  # fmt: skip
    """Checkpoints by the names that they are served under."""
    target = tmp_path_factory.mktemp("infinity-models")
    length = "sentence_bert_config"
    return {
        "qwen3": roomy(qwen3_folder, target / "qwen3"),
        "qwen3-512": roomy(qwen3_folder, target / "qwen3-512", **{length: {"max_seq_length": 512}}),
        "gemma": roomy(
            gemma_folder, target / "gemma", config={"sliding_window": 512}, **{length: {"max_seq_length": 4096}}
        ),
        "classifier": classifier_folder,
        "label": make_classified(target / "label", 1),
    }


@pytest.fixture(scope="module")
def infinity(infinity_server: StartInfinity, folders: dict[str, Path]) -> InfinityServer:
    """One with several models."""
    return infinity_server(folders)


@pytest.fixture(scope="module")
def lone(infinity_server: StartInfinity, folders: dict[str, Path]) -> InfinityServer:
    """One with one model, and a key."""
    return infinity_server({QWEN: folders["qwen3"]}, "--api-key", KEY)


@pytest.fixture(scope="module")
def models(record: Record) -> dict[str, str]:
    """Records of what it serves."""
    size = {"dim": 48, "hidden_size": 48, "max_tokens": LIMIT, "context": LIMIT}
    return {
        "qwen3": record(QWEN, **size, mrl=range(8, 49)),
        "gemma": record("google/embeddinggemma-300m", **size, mrl=(16, 48)),
        "classifier": record(BGE, hidden_size=48, max_tokens=256, context=256),
        "label": record(RERANKER, hidden_size=48, max_tokens=1024, context=1024),
    }


@pytest.fixture(scope="module")
def local(folders: dict[str, Path]) -> Embedder:
    """The engine on the same files."""
    return Embedder(folders["qwen3"], max_tokens=LIMIT, dtype="float32", device="cpu")


def at(server: InfinityServer, model: str, **options: Any) -> OpenAI:
    return OpenAI(base_url=server.url, model=model, **options)


# ---- Vectors


@pytest.mark.slow
@pytest.mark.parametrize("model", ["qwen3", "gemma"])
def test_parity_finds_the_white_space_and_nothing_else(
    model: str, infinity: InfinityServer, models: dict[str, str], folders: dict[str, Path]
) -> None:
    reference = Embedder(folders[model], max_tokens=LIMIT, dtype="float32", device="cpu")
    report = check_parity(Embedder(models[model], backend=at(infinity, model)), reference)
    assert [finding.cause for finding in report.findings] == ["stripped"], report
    assert {"over 512 tokens", "at the limit", "a special token inside"} <= set(report.cosines)
    differs = {name for name, near in report.cosines.items() if near < 0.9999}
    # The end of a prompt is white space, too, where a text is empty.
    assert differs == {"white space at the edges"} | ({"empty"} if model == "gemma" else set())


@pytest.mark.slow
def test_parity_finds_a_silent_cut(infinity: InfinityServer, models: dict[str, str], local: Embedder) -> None:
    """A checkpoint that says 512 is cut there, whatever it is asked for."""
    report = check_parity(Embedder(models["qwen3"], backend=at(infinity, "qwen3-512")), local)
    assert {finding.cause for finding in report.findings} == {"cut silently", "stripped"}, report


@pytest.mark.slow
def test_a_text_that_is_cut_here_is_whole_there(
    infinity: InfinityServer, models: dict[str, str], folders: dict[str, Path]
) -> None:
    backend = at(infinity, "qwen3-512", tokenizer=str(folders["qwen3"]))
    reference = Embedder(folders["qwen3"], max_tokens=512, dtype="float32", device="cpu", truncate="silent")
    texts = [words(1200), "short"]
    with pytest.warns(TruncationWarning):
        found = Embedder(models["qwen3"], backend=backend, max_tokens=512).encode(texts, role="document")
    assert found.truncated is not None
    assert found.truncated.tolist() == [True, False]
    assert cosines(found.vectors, reference.embed_documents(texts)).min() > 0.9999


@pytest.mark.slow
def test_base64_and_numbers_are_the_same_vectors(
    infinity: InfinityServer, models: dict[str, str], local: Embedder, texts: list[str]
) -> None:
    kept = [text for text in texts if text == text.strip()]
    assert "" in kept
    expected = local.embed_documents(kept)
    for encoding in ("base64", "float"):
        found = Embedder(models["qwen3"], backend=at(infinity, "qwen3", encoding=encoding)).embed_documents(kept)
        assert cosines(found, expected).min() > 0.9999


@pytest.mark.slow
def test_short_vectors_are_cut_here(infinity: InfinityServer, models: dict[str, str], local: Embedder) -> None:
    """Infinity cuts them, and leaves them as long as they are then."""
    raw = infinity.ask(EMBEDDINGS, {"model": "qwen3", "input": ["Mars"], "dimensions": 16}).body["data"][0]
    assert 0.1 < np.linalg.norm(raw["embedding"]) < 0.99
    found = Embedder(models["qwen3"], backend=at(infinity, "qwen3"), dim=16).embed_documents(["Mars"])
    np.testing.assert_allclose(np.linalg.norm(found), 1, atol=1e-5)
    assert cosines(found, local.embed_documents(["Mars"])[:, :16]).min() > 0.9999


@pytest.mark.slow
def test_its_usage_counts_letters(
    infinity: InfinityServer, models: dict[str, str], folders: dict[str, Path], local: Embedder
) -> None:
    """Of texts with more tokens than letters that looks like a cut."""
    texts = ["火星因其红色外观而常被称为红色星球。", "🙂🚀" * 20, "Mars", " edges \n"]
    here = Embedder(models["qwen3"], backend=at(infinity, "qwen3", tokenizer=str(folders["qwen3"])))
    found = here.encode(texts, role="document")
    assert found.token_counts is not None
    assert int(found.token_counts.sum()) > sum(map(len, texts))
    assert cosines(found.vectors, local.embed_documents(texts))[:3].min() > 0.9999


@pytest.mark.slow
def test_more_texts_than_it_takes_go_in_smaller_requests(
    infinity: InfinityServer, models: dict[str, str], local: Embedder
) -> None:
    texts = [f"text {number}" for number in range(2049)]
    found = Embedder(models["qwen3"], backend=at(infinity, "qwen3", batch_rows=4096)).embed_documents(texts)
    places = [0, 1, 1023, 1024, 1025, 2047, 2048]
    assert cosines(found[places], local.embed_documents([texts[place] for place in places])).min() > 0.9999


# ---- Which model it is


@pytest.mark.slow
def test_its_list_decides_and_not_the_name(
    infinity: InfinityServer, lone: InfinityServer, models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one model it answers to any name, and with several to theirs."""
    monkeypatch.setenv("INFINITY_TEST_KEY", KEY)
    named = lone.ask(EMBEDDINGS, {"model": "text-embedding-3-large", "input": ["a"]}, key=KEY)
    assert (named.status, named.body["model"]) == (200, QWEN)
    for server, more in ((infinity, {}), (lone, {"api_key_env": "INFINITY_TEST_KEY"})):
        with pytest.raises(ModelMismatchError, match="it serves"):
            Embedder(models["qwen3"], backend=at(server, "another", **more)).embed_query("a")
    there = Embedder(models["qwen3"], backend=at(lone, QWEN, api_key_env="INFINITY_TEST_KEY"))
    assert there.embed_query("a").shape == (48,)


@pytest.mark.slow
def test_a_model_of_the_other_kind_is_refused(infinity: InfinityServer, models: dict[str, str]) -> None:
    with pytest.raises(ModelMismatchError, match="does not support `embed`"):
        Embedder(models["qwen3"], backend=at(infinity, "classifier")).embed_documents(["a", "b"])
    with pytest.raises(ModelMismatchError, match="does not support `rerank`"):
        Reranker(models["classifier"], backend=RerankHttp(base_url=infinity.url, model="qwen3")).score("a", ["b"])


@pytest.mark.slow
def test_a_base_url_with_a_part_too_much(infinity: InfinityServer, models: dict[str, str]) -> None:
    backend = OpenAI(base_url=f"{infinity.url}/v1", model="qwen3")
    with pytest.raises(BackendError, match="is base_url right"):
        Embedder(models["qwen3"], backend=backend).embed_query("a")


# ---- Reranking


DOCUMENTS = ["Mars is a planet.", "A recipe for cake", "yes yes yes", "日本語 and more"]


@pytest.mark.slow
def test_scores_of_a_classifier_are_those_of_this_machine(
    infinity: InfinityServer, models: dict[str, str], classifier_folder: Path
) -> None:
    backend = RerankHttp(base_url=infinity.url, model="classifier", probe="off")
    expected = Reranker(classifier_folder, dtype="float32", device="cpu").score("What is Mars?", DOCUMENTS)
    found = Reranker(models["classifier"], backend=backend).score("What is Mars?", DOCUMENTS)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.ptp(expected) > 1e-3


@pytest.mark.slow
def test_a_template_with_white_space_at_its_ends_is_refused(
    infinity: InfinityServer, models: dict[str, str], folders: dict[str, Path]
) -> None:
    """It is taken off, and what is scored then is another text."""
    here = Reranker(folders["label"], dtype="float32", device="cpu")
    pairs = [here.render("What is Mars?", text) for text in DOCUMENTS]
    body = {"model": "label", "query": pairs[0].head, "documents": [pair.words + pair.tail for pair in pairs]}
    answer = infinity.ask("/rerank", body).body["results"]
    found = {item["index"]: item["relevance_score"] for item in answer}
    expected = here.score("What is Mars?", DOCUMENTS)
    assert min(abs(found[place] - expected[place]) for place in range(len(DOCUMENTS))) > 0.05
    for template in ("server", "client"):
        backend = RerankHttp(base_url=infinity.url, model="label", probe="off", template=template)
        with pytest.raises(ModelMismatchError, match="is Infinity, which takes white space off"):
            Reranker(models["label"], backend=backend).score("What is Mars?", DOCUMENTS)


# ---- What it answers, for tests that cannot start it


class Case(NamedTuple):
    """One request; without a body it is a GET."""

    server: str
    path: str
    body: Any = None
    key: str | None = None


def inputs(*texts: Any, model: str = "qwen3", **more: Any) -> dict[str, Any]:
    return {"model": model, "input": list(texts), **more}


def pairs(*documents: Any, model: str = "classifier", **more: Any) -> dict[str, Any]:
    return {"model": model, "query": "Mars", "documents": list(documents), **more}


CASES = {
    "embeddings": Case("several", EMBEDDINGS, inputs("Mars", "", " x ")),
    "embeddings_base64": Case("several", EMBEDDINGS, inputs("Mars", "x", encoding_format="base64")),
    "embeddings_dimensions": Case("several", EMBEDDINGS, inputs("Mars", dimensions=16)),
    "dimensions_too_many": Case("several", EMBEDDINGS, inputs("Mars", dimensions=99)),
    "bad_encoding_format": Case("several", EMBEDDINGS, inputs("Mars", encoding_format="hex")),
    "ids": Case("several", EMBEDDINGS, inputs([64, 65])),
    "empty_list": Case("several", EMBEDDINGS, inputs()),
    "too_many": Case("several", EMBEDDINGS, inputs(*["the text of a user"] * 2049)),
    "no_such_model": Case("several", EMBEDDINGS, inputs("Mars", model="text-embedding-3-large")),
    "embeddings_of_a_reranker": Case("several", EMBEDDINGS, inputs("Mars", model="classifier")),
    "no_such_path": Case("several", "/v1/embeddings", inputs("Mars")),
    "models": Case("one", "/models", None, KEY),
    "any_model_name": Case("one", EMBEDDINGS, inputs("Mars", model="text-embedding-3-large"), KEY),
    "no_key": Case("one", EMBEDDINGS, inputs("Mars")),
    "rerank": Case("several", "/rerank", pairs("a planet", "yes yes", "cake")),
    "rerank_top_n": Case("several", "/rerank", pairs("a planet", "yes yes", "cake", top_n=2)),
    "rerank_with_documents": Case("several", "/rerank", pairs("a planet", " x ", return_documents=True)),
    "rerank_of_an_embedder": Case("several", "/rerank", pairs("a", model="qwen3")),
    "rerank_nothing": Case("several", "/rerank", pairs()),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_infinity_still_answers_so(name: str, infinity: InfinityServer, lone: InfinityServer) -> None:
    case = CASES[name]
    answer = (infinity if case.server == "several" else lone).ask(case.path, case.body, key=case.key)
    found = Recorded({"models": case.server}, case.path, case.body, case.key, answer)
    if os.environ.get("EMBRIEF_RECORD"):
        record(PAYLOADS, name, found, ABOUT, list(CASES))
    check(PAYLOADS, name, found)


def test_every_case_is_in_the_file() -> None:
    assert list(json.loads(PAYLOADS.read_text("utf-8"))["cases"]) == list(CASES)
