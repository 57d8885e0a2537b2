"""Services of one's own: what goes there, and the forms in which vectors come back."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("httpx")

from embrief import Embedder
from embrief.errors import (
    ArgumentError,
    ArgumentTypeError,
    BadAnswerError,
    InputTooLongError,
    ModelMismatchError,
    NonFiniteVectorError,
)
from embrief.servers import HttpSimple
from embrief.testing import Asked, LoopbackServer, Reply

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
QWEN = "Qwen/Qwen3-Embedding-0.6B"
DIM = 384


def vector(text: str) -> list[float]:
    return [float(len(text)), 1.0, *[0.0] * (DIM - 2)]


def expected(*texts: str) -> np.ndarray:
    found = np.array([vector(text) for text in texts], np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def service(answer: Callable[[list[list[float]]], Any], field: str = "texts") -> LoopbackServer:
    def reply(asked: Asked) -> Reply:
        texts = asked.body[field]
        return Reply(answer([vector(text) for text in ([texts] if isinstance(texts, str) else texts)]))

    return LoopbackServer(reply)


def embedder(server: LoopbackServer, record: str = MODEL, **options: Any) -> Embedder:
    return Embedder(record, backend=HttpSimple(base_url=server.url, **options))


def bodies(server: LoopbackServer) -> list[tuple[str, Any]]:
    return [(asked.path, asked.body) for asked in server.seen]


# ---- What is sent


@pytest.mark.parametrize(
    ("options", "path", "body"),
    [
        ({}, "/encode", {"texts": ["one", "three"]}),
        ({"text_endpoint": "/txt/embed"}, "/txt/embed", {"input": ["one", "three"]}),
        ({"text_endpoint": "/txt/embed?v=2"}, "/txt/embed?v=2", {"input": ["one", "three"]}),
        ({"field": "sentences"}, "/encode", {"sentences": ["one", "three"]}),
        ({"model": "mini"}, "/encode", {"texts": ["one", "three"], "model": "mini"}),
    ],
)
def test_texts_go_where_the_options_say(options: dict[str, Any], path: str, body: dict[str, Any]) -> None:
    field = next(name for name in body if name != "model")
    with service(lambda rows: rows, field) as server:
        embedder(server, **options).embed_documents(["one", "three"])
        assert bodies(server) == [(path, body)]


@pytest.mark.parametrize(("path", "field"), [("/txt/embed", "input"), ("/encode", "text")])
def test_a_service_of_one_text_gets_each_by_itself(path: str, field: str) -> None:
    with service(lambda rows: {"embedding": rows[0]}, field) as server:
        here = embedder(server, text_endpoint=path, one_by_one=True)
        found = here.embed_documents(["one", "three", "seven"])
        assert sorted(body[field] for _, body in bodies(server)) == ["one", "seven", "three"]
        np.testing.assert_allclose(found, expected("one", "three", "seven"), atol=1e-6)


def test_prompts_are_put_around_texts_here() -> None:
    def answer(asked: Asked) -> Reply:
        return Reply([[1.0] * 1024 for _ in asked.body["texts"]])

    with LoopbackServer(answer) as server:
        here = embedder(server, QWEN)
        here.embed_query("what?")
        assert server.seen[-1].body["texts"] == [here.render("what?", role="query")]
        assert server.seen[-1].body["texts"][0].startswith("Instruct: ")


def test_nobody_can_say_that_vectors_are_raw() -> None:
    """A service normalises, or it does not: it cannot be asked."""
    with pytest.raises(ArgumentError, match="normalize=False cannot be had from 'http-simple'"):
        Embedder(MODEL, backend=HttpSimple(base_url="http://127.0.0.1:1"), normalize=False)


def test_another_route_is_another_fingerprint() -> None:
    one, other = (
        Embedder(MODEL, backend=HttpSimple(base_url="http://127.0.0.1:1", text_endpoint=path)).fingerprint
        for path in ("/encode", "/encode2")
    )
    assert one != other


def test_what_is_asked_and_read_is_in_the_fingerprint() -> None:
    """A service may give one model's vectors under one name and another's under another."""
    given: list[dict[str, Any]] = [{}, {"field": "docs"}, {"answer_field": "other.vectors"}, {"one_by_one": True}]
    backends = [HttpSimple(base_url="http://127.0.0.1:1", **options) for options in given]
    assert len({Embedder(MODEL, backend=backend).fingerprint for backend in backends}) == len(given)
    usual = HttpSimple(base_url="http://127.0.0.1:1", field="texts")
    assert Embedder(MODEL, backend=usual).fingerprint == Embedder(MODEL, backend=backends[0]).fingerprint


# ---- What comes back


@pytest.mark.parametrize(
    "answer",
    [
        lambda rows: rows,
        lambda rows: {"embeddings": rows},
        lambda rows: {"vectors": rows, "dim": DIM},
        lambda rows: {"embedding": rows},
        lambda rows: {"vector": rows},
        lambda rows: {"data": [{"embedding": row} for row in rows]},
        lambda rows: {"data": [{"embedding": row, "index": place} for place, row in enumerate(rows)][::-1]},
        lambda rows: [{"vector": row} for row in rows],
    ],
)
@pytest.mark.parametrize("texts", [["one", "three"], ["seventh"]])
def test_usual_forms_are_read(answer: Any, texts: list[str]) -> None:
    with service(answer) as server:
        np.testing.assert_allclose(embedder(server).embed_documents(texts), expected(*texts), atol=1e-6)


@pytest.mark.parametrize(
    ("field", "answer"),
    [
        ("auto", lambda rows: rows[0]),
        ("auto", lambda rows: {"embedding": rows[0]}),
        ("data.vector", lambda rows: {"data": {"vector": rows[0]}}),
        ("out", lambda rows: {"out": base64.b64encode(np.array(rows[0], "<f4")).decode()}),
    ],
)
def test_one_text_may_be_answered_with_one_vector(field: str, answer: Any) -> None:
    with service(answer, "text") as server:
        here = embedder(server, one_by_one=True, answer_field=field)
        np.testing.assert_allclose(here.embed_documents(["one", "three"]), expected("one", "three"), atol=1e-6)


@pytest.mark.parametrize(
    ("field", "answer"),
    [
        ("out", lambda rows: {"out": rows}),
        ("result.vectors", lambda rows: {"result": {"vectors": rows}}),
        ("out[].v", lambda rows: {"out": [{"v": row} for row in rows]}),
        ("out.v", lambda rows: {"out": [{"v": row, "index": place} for place, row in enumerate(rows)][::-1]}),
        ("v", lambda rows: [{"v": row} for row in rows]),
    ],
)
def test_other_forms_are_described(field: str, answer: Any) -> None:
    with service(answer) as server:
        here = embedder(server, answer_field=field)
        np.testing.assert_allclose(here.embed_documents(["one", "three"]), expected("one", "three"), atol=1e-6)


def test_a_form_that_is_not_as_described_says_what_there_is() -> None:
    with service(lambda rows: {"out": rows, "time": 1}) as server:
        with pytest.raises(BadAnswerError, match=r"without 'result', which .*'result.v'.* it has \['out', 'time'\]"):
            embedder(server, answer_field="result.v").embed_query("a")
        with pytest.raises(BadAnswerError, match=r"it has \['out', 'time'\]"):
            embedder(server).embed_query("a")


@pytest.mark.parametrize("answer", [lambda row: [row, row], lambda row: {"embedding": [row, row]}])
def test_vectors_per_token_are_refused(answer: Any) -> None:
    with (
        service(lambda rows: answer(rows[0]), "text") as server,
        pytest.raises(BadAnswerError, match="2 vectors for text 0, one per token"),
    ):
        embedder(server, one_by_one=True).embed_query("a")


def test_null_and_other_widths_are_refused() -> None:
    with (
        service(lambda rows: {"embedding": None}, "text") as server,
        pytest.raises(NonFiniteVectorError, match="index 0"),
    ):
        embedder(server, one_by_one=True).embed_query("a")
    with (
        service(lambda rows: rows) as server,
        pytest.raises(ModelMismatchError, match="vectors of 384 values, and Qwen/"),
    ):
        embedder(server, QWEN).embed_query("a")


# ---- What it says is wrong


@pytest.mark.parametrize(
    ("problem", "remedy", "options"),
    [
        ({"type": "missing", "loc": ["body", "sentences"], "msg": "Field required"}, r"field='sentences'", {}),
        ({"type": "string_type", "loc": ["body", "texts"], "msg": "a valid string"}, r"one_by_one=True", {}),
        ({"type": "list_type", "loc": ["body", "text"], "msg": "a valid list"}, "leave out", {"one_by_one": True}),
    ],
)
def test_a_request_of_the_wrong_form_says_which_option_is_wrong(problem: Any, remedy: str, options: Any) -> None:
    with LoopbackServer(lambda _: Reply({"detail": [problem]}, 422)) as server:
        with pytest.raises(ArgumentError, match=remedy):
            embedder(server, **options).embed_documents(["one", "three"])
        assert len(server.seen) == len({str(asked.body) for asked in server.seen})


def test_a_text_that_is_too_large_is_named() -> None:
    def small(asked: Asked) -> Reply:
        texts = asked.body["texts"]
        return Reply("too large", 413) if "three" in texts else Reply([vector(text) for text in texts])

    with LoopbackServer(small) as server, pytest.raises(InputTooLongError, match="index 1"):
        embedder(server).embed_documents(["one", "three", "seven"])


# ---- Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text_endpoint": "encode"}, "text_endpoint='encode'"),
        ({"text_endpoint": "http://other/encode"}, "must be a path"),
        ({"text_endpoint": "/a b"}, "must be a path"),
        ({"text_endpoint": ""}, "text_endpoint=''"),
        ({"text_endpoint": 7}, "text_endpoint=7"),
        ({"field": ""}, "field=''"),
        ({"field": "model"}, "field='model'"),
        ({"answer_field": "a..b"}, r"answer_field='a\.\.b'"),
        ({"one_by_one": 1}, "one_by_one=1"),
        ({"one_by_one": True, "batch_rows": 8}, "batch_rows=8"),
    ],
)
def test_options_that_cannot_work(options: Any, message: str) -> None:
    with pytest.raises((ArgumentError, ArgumentTypeError), match=message):
        HttpSimple(base_url="http://127.0.0.1:1", **options)


def test_it_needs_an_address() -> None:
    with pytest.raises(ArgumentError, match="HttpSimple needs base_url="):
        HttpSimple()


def test_a_path_stays_at_its_address() -> None:
    """Two slashes begin no other host: texts and keys go to the one that was named."""
    with service(lambda rows: rows) as server:
        embedder(server, text_endpoint="//other.example/encode").embed_query("a")
        assert server.seen[-1].headers["host"] == server.url.removeprefix("http://")
