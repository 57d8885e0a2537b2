"""Servers with a rerank route: a real llama-server's scores, and the forms and habits of others."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("httpx")

from embrief import Reranker
from embrief.errors import (
    ArgumentError,
    BackendError,
    BadAnswerError,
    EmbriefError,
    InputTooLongError,
    ModelMismatchError,
    NonFiniteVectorError,
    ServerModelWarning,
    UnauthorizedError,
)
from embrief.servers import RerankHttp, http
from embrief.testing import Asked, LoopbackServer, Reply

from ..gguf_writer import RERANK_TEMPLATE, write_embedder, write_reranker
from .conftest import Record, StartLlama
from .helpers import payload, posted, words

QWEN, BGE = "Qwen/Qwen3-Reranker-0.6B", "BAAI/bge-reranker-v2-m3"
OWN = "Given a web search query, retrieve relevant passages that answer the query"
DOCUMENTS = ["Mars is a planet.", "A recipe for cake", "", "yes yes yes", "日本語 <|im_end|>\n and more\n" * 3]
RERANK = "/v1/rerank"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_pause", lambda attempt, after: after or 0.0)


def at(server: Any, **options: Any) -> RerankHttp:
    return RerankHttp(base_url=f"{server.url}/v1", **options)


# ---- A real llama-server ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def file(reranker_folder: Path, gguf_folder: Path) -> Path:
    return write_reranker(reranker_folder, gguf_folder / f"http-{reranker_folder.name}.gguf")


@pytest.fixture(scope="module")
def engine(reranker_folder: Path) -> Reranker:
    return Reranker(str(reranker_folder), device="cpu", dtype="float32", max_tokens=1024)


@pytest.mark.slow
def test_scores_are_those_of_the_engine(
    file: Path, engine: Reranker, reranker_model: str, llama_server: StartLlama
) -> None:
    here = Reranker(reranker_model, backend=at(llama_server(file, "--rerank"), probe="off"))
    expected = engine.score("What is Mars?", DOCUMENTS)
    assert np.ptp(expected) > 0.02
    np.testing.assert_allclose(here.score("What is Mars?", DOCUMENTS), expected, atol=2e-3)
    np.testing.assert_allclose(here.score("What is Mars?", DOCUMENTS, instruction=OWN), expected, atol=2e-3)
    alone = [here.score("What is Mars?", [document])[0] for document in DOCUMENTS]
    np.testing.assert_allclose(alone, expected, atol=2e-3)
    pairs = [("What is Mars?", DOCUMENTS[0]), ("cake", DOCUMENTS[1]), ("What is Mars?", DOCUMENTS[3]), ("", "")]
    np.testing.assert_allclose(here.score_pairs(pairs), engine.score_pairs(pairs), atol=2e-3)
    found = [item.index for item in asyncio.run(here.arerank("What is Mars?", DOCUMENTS, top_n=2))]
    assert found == np.argsort(-here.score("What is Mars?", DOCUMENTS))[:2].tolist()
    assert here.info()["calibrated"]


@pytest.mark.slow
def test_what_llama_server_cannot_do_is_refused(file: Path, reranker_model: str, llama_server: StartLlama) -> None:
    """It has one instruction, in the file, and puts a document wherever a query says so."""
    here = Reranker(reranker_model, backend=at(llama_server(file, "--rerank"), probe="off"))
    with pytest.raises(ArgumentError, match="instruction='Find recipes'"):
        here.score("Mars", DOCUMENTS, instruction="Find recipes")
    with pytest.raises(ArgumentError, match=r"'{document}'"):
        here.score("{document} and {document}", DOCUMENTS)


@pytest.mark.slow
def test_a_file_without_a_score_head_is_found_out(
    reranker_folder: Path, reranker_model: str, gguf_folder: Path, llama_server: StartLlama
) -> None:
    plain = write_reranker(reranker_folder, gguf_folder / f"http-{reranker_folder.name}-plain.gguf", head=False)
    with pytest.raises(ModelMismatchError, match=r"mean nothing.*score head.*probe='off'"):
        Reranker(reranker_model, backend=at(llama_server(plain, "--rerank"))).score("Mars", DOCUMENTS)


@pytest.mark.slow
def test_a_server_that_does_not_rerank(
    qwen3_folder: Path, reranker_model: str, gguf_folder: Path, llama_server: StartLlama
) -> None:
    embedder = write_embedder(qwen3_folder, gguf_folder / "http-embedder.gguf")
    server = llama_server(embedder, "--embedding")
    with pytest.raises(ModelMismatchError, match=r"does not rerank.*--reranking"):
        Reranker(reranker_model, backend=at(server)).score("Mars", DOCUMENTS)


@pytest.mark.slow
def test_pairs_that_do_not_fit_together(
    file: Path, engine: Reranker, reranker_model: str, llama_server: StartLlama
) -> None:
    here = Reranker(reranker_model, backend=at(llama_server(file, "--rerank"), probe="off"))
    documents = [words(600, first) for first in range(8)]
    np.testing.assert_allclose(here.score("Mars", documents), engine.score("Mars", documents), atol=3e-3)


@pytest.mark.slow
def test_a_pair_over_the_context(
    file: Path, reranker_folder: Path, engine: Reranker, reranker_model: str, llama_server: StartLlama
) -> None:
    server = llama_server(file, "--rerank", "-c", "512")
    here = Reranker(reranker_model, backend=at(server, probe="off"))
    with pytest.raises(InputTooLongError, match=r"takes 511.*tokenizer") as caught:
        here.score("Mars", ["a", words(700), "b"])
    assert (caught.value.index, caught.value.limit) == (1, 511)
    assert 700 < caught.value.tokens < 1000
    # With the tokenizer at hand documents are cut here, as the engine cuts them.
    backend = at(server, probe="off", tokenizer=str(reranker_folder))
    counted = Reranker(reranker_model, backend=backend, max_tokens=400, truncate="silent")
    short = Reranker(str(reranker_folder), device="cpu", dtype="float32", max_tokens=400, truncate="silent")
    documents = ["a", words(700), "planets and their moons, " * 90]
    np.testing.assert_allclose(counted.score("Mars", documents), short.score("Mars", documents), atol=3e-3)
    for here in (counted, short):
        strict = Reranker(here.settings.model, **{**_kept(here), "truncate": "error"})
        with pytest.raises(InputTooLongError) as caught:
            strict.score("Mars", documents)
        assert caught.value.index == 1
        assert str(caught.value).startswith("the query with the document at index 1 has ")
    with pytest.raises(InputTooLongError, match="leaves no room"):
        counted.score("a long query " * 150, ["a"])


def _kept(here: Reranker) -> dict[str, Any]:
    values = here.settings.values()
    return {name: values[name] for name in ("backend", "device", "dtype", "max_tokens")}


# ---- Forms and habits of others -----------------------------------------------------------------------


def serving(
    answer: Callable[[Asked], Reply], *, probed: tuple[float, float] = (0.99, 0.01), models: Reply | None = None
) -> LoopbackServer:
    """A server: `answer` says what becomes of a request that is not the probe of two pairs."""

    def reply(asked: Asked) -> Reply:
        if asked.path.endswith("/models"):
            return models or Reply({"detail": "Not Found"}, 404)
        if asked.body["documents"][0].endswith("Beijing.") or "Beijing" in asked.body["documents"][0]:
            return Reply({"results": [{"index": n, "relevance_score": score} for n, score in enumerate(probed)]})
        return answer(asked)

    return LoopbackServer(reply)


def scoring(score: Callable[[str, str], Any], **options: Any) -> LoopbackServer:
    """A server in Jina's form: best first."""

    def answer(asked: Asked) -> Reply:
        found = [(n, score(asked.body["query"], document)) for n, document in enumerate(asked.body["documents"])]
        ranked = sorted(found, key=lambda item: -(item[1] or 0))
        return Reply({"results": [{"index": n, "relevance_score": value} for n, value in ranked]})

    return serving(answer, **options)


def asked_for(server: LoopbackServer) -> list[Any]:
    return [body for body in posted(server, RERANK) if "Beijing" not in body["documents"][0]]


@pytest.mark.parametrize("case", ["jina", "cohere", "vllm", "sglang", "tei_shape"])
def test_answers_of_every_form_are_read(case: str) -> None:
    with serving(lambda _: payload("rerank", case)) as server:
        found = Reranker(BGE, backend=at(server)).score("q", ["a", "b", "c"])
        assert asked_for(server) == [{"model": BGE, "query": "q", "documents": ["a", "b", "c"], "top_n": 3}]
    np.testing.assert_allclose(found, [0.9, 0.2, 0.6], atol=1e-6)


@pytest.mark.parametrize(
    ("file", "case", "count"),
    [("llama_server", "rerank", 3), ("llama_server", "rerank_texts", 2), ("infinity", "rerank", 3),
     ("infinity", "rerank_with_documents", 2)],
)  # fmt: skip
def test_answers_of_real_servers_are_read(file: str, case: str, count: int) -> None:
    with serving(lambda _: payload(file, case)) as server:
        found = Reranker(BGE, backend=at(server)).score("q", ["a", "b", "c"][:count])
    told = payload(file, case).body
    items = told["results"] if isinstance(told, dict) else told
    expected = {item["index"]: item.get("relevance_score", item.get("score")) for item in items}
    np.testing.assert_allclose(found, [expected[n] for n in range(count)], atol=1e-6)


def test_an_answer_to_fewer_documents_is_none() -> None:
    """`top_n` is sent, and a server that has its own is not believed."""
    short = payload("rerank", "jina")
    short.body["results"].pop()
    with serving(lambda _: copy.deepcopy(short)) as server, pytest.raises(BadAnswerError, match="2 items for 3"):
        Reranker(BGE, backend=at(server)).score("q", ["a", "b", "c"])


def test_log_odds_are_seen_from_the_two_pairs() -> None:
    """A score between 0 and 1 is what the others are: no request is judged by itself."""
    logits = {"a": 0.5, "b": -7.0, "c": 12.0, "d": 0.9}
    with scoring(lambda _, document: logits[document], probed=(5.0, -9.0)) as server:
        here = Reranker(BGE, backend=at(server, batch_rows=1))
        np.testing.assert_allclose(
            here.score("q", list(logits)), 1 / (1 + np.exp(-np.array(list(logits.values())))), rtol=1e-5
        )
    mixed = scoring(lambda _, document: logits[document], probed=(0.9, 0.1))
    with mixed as server, pytest.raises(BadAnswerError, match=r"scores='log_odds'"):
        Reranker(BGE, backend=at(server)).score("q", ["c"])


def test_the_scale_can_be_said() -> None:
    with scoring(lambda *_: 0.5, probed=(0.9, -5.0)) as server:
        found = Reranker(BGE, backend=at(server, scores="log_odds")).score("q", ["a"])
        np.testing.assert_allclose(found, 1 / (1 + np.exp(-0.5)), rtol=1e-5)
    with scoring(lambda *_: 0.5) as server:
        assert Reranker(BGE, backend=at(server, scores="probability")).score("q", ["a"])[0] == pytest.approx(0.5)
    with scoring(lambda *_: 0.5) as server:
        here = Reranker(BGE, backend=at(server, scores="log_odds", probe="off"))
        np.testing.assert_allclose(here.score("q", ["a"]), 1 / (1 + np.exp(-0.5)), rtol=1e-5)
        assert len(posted(server, RERANK)) == 1


def test_probabilities_of_0_and_1_stay_in_order() -> None:
    with scoring(lambda _, document: float(document)) as server:
        found = Reranker(BGE, backend=at(server)).score("q", ["1.0", "0.0", "0.5", "1e-30"])
    np.testing.assert_allclose(found, [1, 0, 0.5, 0], atol=1e-6)


@pytest.mark.parametrize("probed", [(0.0124, 0.0044), (0.5, 0.5), (0.1, 0.9), (1e-23, 1e-23)])
def test_scores_that_mean_nothing_are_found_out(probed: tuple[float, float]) -> None:
    """The first are those of a plain language model behind llama-server; the last of files that lack the head."""
    with scoring(lambda *_: 0.5, probed=probed) as server:
        with pytest.raises(ModelMismatchError, match="mean nothing"):
            Reranker(BGE, backend=at(server)).score("q", ["a"])
        assert not asked_for(server)
        assert Reranker(BGE, backend=at(server, probe="off")).score("q", ["a"])[0] == pytest.approx(0.5)


def test_queries_are_never_mixed() -> None:
    """One request per query, in the order of the pairs."""
    pairs = [(f"q{number % 3}", f"d{number}") for number in range(30)]
    with scoring(lambda query, document: (int(query[1:]) * 100 + int(document[1:])) / 1000) as server:
        found = Reranker(BGE, backend=at(server)).score_pairs(pairs)
        bodies = asked_for(server)
    assert len(bodies) == 3
    np.testing.assert_allclose(found, [(number % 3 * 100 + number) / 1000 for number in range(30)], atol=1e-5)
    assert {body["query"]: len(body["documents"]) for body in bodies} == {"q0": 10, "q1": 10, "q2": 10}


def test_the_pair_at_fault_is_named_among_several_queries() -> None:
    pairs = [("a", "1"), ("b", "2"), ("a", "3"), ("b", "NaN"), ("a", "5")]
    with scoring(lambda _, document: None if document == "NaN" else 0.5) as server:
        with pytest.raises(NonFiniteVectorError, match="index 3") as caught:
            Reranker(BGE, backend=at(server)).score_pairs(pairs)
        assert caught.value.index == 3

    def refuses(asked: Asked) -> Reply:
        long = "NaN" in asked.body["documents"]
        return payload("rerank", "vllm_too_long") if long else Reply({"results": [
            {"index": n, "relevance_score": 0.5} for n in range(len(asked.body["documents"]))
        ]})  # fmt: skip

    with serving(refuses) as server, pytest.raises(InputTooLongError, match=r"600 tokens.*takes 512") as long:
        Reranker(BGE, backend=at(server)).score_pairs(pairs)
    assert long.value.index == 3


def test_a_pair_that_others_are_in_the_way_of_is_asked_for_as_often_as_allowed() -> None:
    left = ["over_shared_context"] * 3
    healthy = Reply({"results": [{"index": 0, "relevance_score": 0.5}]})
    with serving(lambda _: payload("llama_server", left.pop()) if left else healthy) as server:
        assert Reranker(BGE, backend=at(server)).score("q", ["a"]).shape == (1,)
        assert len(asked_for(server)) == 4


# ---- Who puts the template there


def test_a_server_with_a_template_gets_query_and_document_alone() -> None:
    with scoring(lambda *_: 0.5) as server:
        here = Reranker(QWEN, backend=at(server))
        here.score("q", ["d"])
        here.score("q", ["d"], instruction=OWN)
        with pytest.raises(ArgumentError, match="instruction='Find recipes'"):
            here.score("q", ["d"], instruction="Find recipes")
        with pytest.raises(ArgumentError, match="instruction=''"):
            here.score("q", ["d"], instruction="")
        assert [(body["query"], body["documents"]) for body in asked_for(server)] == [("q", ["d"])] * 2
    with pytest.raises(ArgumentError, match="instruction='Find recipes'"):
        Reranker(QWEN, backend=at(server), instruction="Find recipes").score("q", ["d"])


@pytest.mark.parametrize("query", ["{document}", "a {document} b", "{{document}}"])
def test_a_query_that_names_the_place_of_the_document(query: str) -> None:
    with scoring(lambda *_: 0.5) as server:
        with pytest.raises(ArgumentError, match="run the model here"):
            Reranker(QWEN, backend=at(server)).score(query, ["d"])
        assert not asked_for(server)
        # Where no template is filled that way, it is a text like any other.
        assert Reranker(BGE, backend=at(server)).score(query, ["d"]).shape == (1,)
        assert Reranker(QWEN, backend=at(server, template="client")).score(query, ["d"]).shape == (1,)
        Reranker(QWEN, backend=at(server)).score("document", ["{document} {query}"])
    vllm = Reply({"data": [{"id": QWEN, "object": "model", "owned_by": "vllm"}]})
    with scoring(lambda *_: 0.5, models=vllm) as server:
        assert Reranker(QWEN, backend=at(server)).score(query, ["d"]).shape == (1,)


def test_the_template_of_the_record_is_sent_in_two_parts() -> None:
    """Put one behind the other, as servers do that know no template, query and document are what the model reads."""
    texts = ["a document", "{query} </think>", ""]
    with scoring(lambda *_: 0.5) as server:
        here = Reranker(QWEN, backend=at(server, template="client"))
        for instruction in (None, "Find recipes", ""):
            server.seen.clear()
            here.score("{document} {instruction}", texts, instruction=instruction)
            bodies = asked_for(server)
            assert len(bodies) == 1
            sent = [bodies[0]["query"] + document for document in bodies[0]["documents"]]
            expected = [here.render("{document} {instruction}", text, instruction=instruction).text for text in texts]
            assert sent == expected
        # That of the probe has the model's own instruction.
        server.seen.clear()
        Reranker(QWEN, backend=at(server, template="client", timeout=50)).load()
        probe = posted(server, RERANK)[0]
    wanted = RERANK_TEMPLATE.replace("{query}", "What is the capital of China?")
    assert probe["query"] + probe["documents"][0] == wanted.replace("{document}", "The capital of China is Beijing.")


@pytest.mark.parametrize("template", ["client", "server"])
def test_infinity_takes_off_what_a_template_ends_with(template: str) -> None:
    """White space at both ends, which a template with none there does not miss; and it knows no template itself."""
    listed = Reply({"data": [{**payload("infinity", "models").body["data"][0], "id": QWEN}]})
    with scoring(lambda *_: 0.5, models=listed) as server:
        with pytest.raises(ModelMismatchError, match="is Infinity, which takes white space off"):
            Reranker(QWEN, backend=at(server, template=template)).score("q", ["d"])
        assert not posted(server, RERANK)
    listed.body["data"][0]["id"] = BGE
    with scoring(lambda *_: 0.5, models=listed) as server:
        assert Reranker(BGE, backend=at(server)).score("q", ["d"]).shape == (1,)


def test_a_model_without_a_template_has_none_to_send() -> None:
    with pytest.raises(ArgumentError, match="template='client'"):
        Reranker(BGE, backend=RerankHttp(base_url="http://127.0.0.1:1", template="client"))


def test_a_template_is_part_of_the_fingerprint() -> None:
    url = "http://127.0.0.1:1"
    prints = {
        Reranker(QWEN, backend=RerankHttp(base_url=url, template=template)).fingerprint
        for template in ("server", "client")
    }
    assert len(prints) == 2


# ---- Which model it is, and errors


def models_of(*names: str) -> Reply:
    return Reply(
        {"object": "list", "data": [{"id": name, "object": "model", "owned_by": "infinity"} for name in names]}
    )


def test_a_list_of_models_decides() -> None:
    """Infinity answers to any name."""
    for names, asked in (([BGE], BGE), (["bge-reranker-v2-m3"], "bge-reranker-v2-m3"), (["/data"], "/data")):
        with scoring(lambda *_: 0.5, models=models_of(*names)) as server:
            Reranker(BGE, backend=at(server)).score("q", ["d"])
            assert {body["model"] for body in posted(server, RERANK)} == {asked}
    with scoring(lambda *_: 0.5, models=models_of("mixedbread-ai/mxbai-rerank-base-v1")) as server:
        with pytest.raises(ModelMismatchError, match="it serves 'mixedbread-ai"):
            Reranker(BGE, backend=at(server)).score("q", ["d"])
        assert not posted(server, RERANK)
    with scoring(lambda *_: 0.5, models=models_of("ranker")) as server, pytest.warns(ServerModelWarning):
        Reranker(BGE, backend=at(server)).score("q", ["d"])


@pytest.mark.parametrize(
    ("file", "case", "kind"),
    [
        ("rerank", "jina_unauthorised", UnauthorizedError),
        ("rerank", "cohere_not_found", ModelMismatchError),
        ("llama_server", "rerank_disabled", ModelMismatchError),
        ("infinity", "rerank_of_an_embedder", ModelMismatchError),
        ("llama_server", "no_such_path", BackendError),
        ("llama_server", "rerank_over_context", InputTooLongError),
    ],
)
def test_errors_have_types(file: str, case: str, kind: type[EmbriefError]) -> None:
    with serving(lambda _: payload(file, case)) as server, pytest.raises(kind) as caught:
        Reranker(BGE, backend=at(server)).score("a secret query of mine", ["a secret diary of mine"])
    assert "secret" not in str(caught.value)


def test_texts_that_a_server_repeats_are_not_shown() -> None:
    for part in ("query", "documents"):

        def repeats(asked: Asked, part: str = part) -> Reply:
            return Reply({"detail": [{"msg": f"cannot read {asked.body[part]}", "loc": ["body"]}]}, 422)

        with serving(repeats) as server, pytest.raises(BackendError, match="repeats the text") as caught:
            Reranker(BGE, backend=at(server)).score("a secret query of mine", ["a secret diary of mine"])
        assert "secret" not in str(caught.value)


# ---- Providers


@pytest.fixture
def hosted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, str], Any]]:
    """Requests to providers, which are answered here."""
    import json

    seen: list[tuple[str, dict[str, str], Any]] = []

    async def exchange(client: Any, method: str, url: str, headers: Any, content: bytes, options: Any) -> Any:
        body = json.loads(content)
        seen.append((url, headers, body))
        results = [{"index": n, "relevance_score": 0.01 * n} for n in range(len(body["documents"]))]
        return 200, {}, json.dumps({"results": results}).encode()

    monkeypatch.setattr(http, "_exchange", exchange)
    for name in ("COHERE_API_KEY", "JINA_API_KEY"):
        monkeypatch.setenv(name, f"key-of-{name}")
    return seen


@pytest.mark.filterwarnings("ignore::embrief.LicenseWarning")
def test_providers_are_asked_for_what_is_wanted_and_no_more(hosted: list[tuple[str, dict[str, str], Any]]) -> None:
    """Each request costs; and their scores put documents in order, and are no probabilities."""
    for model, base, url, key in (
        ("cohere/rerank-v3.5", "https://api.cohere.com/v2", "https://api.cohere.com:443/v2/rerank", "COHERE_API_KEY"),
        ("jina-reranker-v2-base-multilingual", "https://api.jina.ai/v1", "https://api.jina.ai:443/v1/rerank",
         "JINA_API_KEY"),
    ):  # fmt: skip
        hosted.clear()
        here = Reranker(model, backend=RerankHttp(base_url=base))
        np.testing.assert_allclose(here.score("q", ["a", "b", "c"]), [0, 0.01, 0.02], atol=1e-6)
        assert not here.info()["calibrated"]
        assert [(found, headers["Authorization"]) for found, headers, _ in hosted] == [(url, f"Bearer key-of-{key}")]


def test_a_small_model_of_random_weights_needs_no_probe(record: Record) -> None:
    model = record(QWEN)
    with scoring(lambda *_: 0.4, probed=(0.51, 0.49)) as server:
        assert Reranker(model, backend=at(server, probe="off")).score("q", ["d"])[0] == pytest.approx(0.4, abs=1e-6)
        # The scale is seen from the two pairs all the same.
        assert len(posted(server, RERANK)) == 2
