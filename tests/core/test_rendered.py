"""One rendered value for texts and pairs: what it is made of, what names it, and the tail that is never cut."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import embrief
from embrief import (
    ArgumentError,
    BackendError,
    Embedder,
    EmbeddingPrompts,
    EmbeddingSpec,
    InputTooLongError,
    Rendered,
    Reranker,
    RerankerSpec,
    Source,
    Task,
    Template,
    plugins,
)
from embrief.facts.prompts import fill
from embrief.testing import FakeRuntime

NAME = "acme/with-a-tail"
TAIL = "<|im_end|>\n<|im_start|>answer"
LIMIT = 80


def test_what_is_filled_in_is_not_looked_at_again() -> None:
    template = Template("{instruction}|{query}|{other}", "{title}")
    filled = fill(template, instruction="{query}", query="{instruction}{title}")
    assert filled == Template("{query}|{instruction}{title}|{other}", "{title}")


def test_a_key_names_what_the_model_gets() -> None:
    value = Rendered("a", "b", "c", Source("query"))
    assert value.key == Rendered("a", "b", "c", Source("document", title="t")).key
    assert value == Rendered("a", "b", "c"), "where it comes from is not what the model gets"
    others = [Rendered("ab", "", "c"), Rendered("", "ab", "c"), Rendered("a", "bc", ""), Rendered("a", "b", "d")]
    assert len({value.key, *(other.key for other in others)}) == 5
    parts = b"".join(len(part).to_bytes(8, "little") + part for part in ("é".encode(), b"x", b""))
    assert Rendered("é", "x").key == hashlib.sha256(parts).digest(), "caches on disk keep these"
    assert Rendered("", "\ud800").key


def test_a_source_says_what_a_server_that_renders_by_itself_needs() -> None:
    seen: list[Rendered] = []
    with FakeRuntime(batch_tokens=100) as fake:
        plain = fake._embedder

        def spy(request):  # type: ignore[no-untyped-def]
            model = plain(request)
            prepare = model.prepare
            model.prepare = lambda inputs, options: (seen.extend(inputs), prepare(inputs, options))[1]
            return model

        fake._embedder = spy  # type: ignore[method-assign]
        embedder = Embedder(fake.gemma)
        embedder.embed_query("q", instruction="Find")
        embedder.embed_query("r")
        embedder.embed_query("s", instruction="")
        embedder.embed_query("t", task="clustering")
        embedder.embed_documents(["d", "e"], titles=["T", None])
    assert [item.source for item in seen] == [
        Source("query", instruction="Find"),
        Source("query", instruction="search result"),
        Source("query", task=""),
        Source("query", task="clustering"),
        Source("document", title="T"),
        Source("document"),
    ]
    assert [item.body for item in seen] == ["q", "r", "s", "t", "d", "e"]
    pair = Reranker("Qwen/Qwen3-Reranker-0.6B").render("which?", "this", instruction="Find")
    assert (pair.source, pair.body) == (Source("pair", query="which?", instruction="Find"), "this")
    assert Reranker("BAAI/bge-reranker-v2-m3").render("which?", "this").source == Source("pair", query="which?")


@pytest.fixture
def spec(qwen3_folder: Path) -> Iterator[EmbeddingSpec]:
    like = Embedder(qwen3_folder).spec
    first = like.prompts.tasks[0]
    prompts = EmbeddingPrompts(tasks=(Task("retrieval", replace(first.query, tail=TAIL), Template("", TAIL)),))
    found = replace(like, id=NAME, revision="v1", folder=qwen3_folder, prompts=prompts, license="mit")
    plugins().catalog.add_model(found)
    yield found
    plugins().catalog.remove("", [NAME])


@pytest.mark.parametrize("backend", ["engine", "sentence-transformers"])
def test_a_tail_is_never_cut(spec: EmbeddingSpec, qwen3_folder: Path, texts: list[str], backend: str) -> None:
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModel

    tokenizer = Tokenizer.from_file(str(qwen3_folder / "tokenizer.json"))
    model = AutoModel.from_pretrained(qwen3_folder, dtype=torch.float32).eval()
    tail = [*tokenizer.encode(TAIL, add_special_tokens=False).ids, tokenizer.token_to_id("<|endoftext|>")]
    texts = [*texts, "a long text " * 80]
    with Embedder(NAME, backend=backend, dtype="float32", max_tokens=LIMIT, truncate="silent") as embedder:
        for role, head in (("query", spec.prompts.tasks[0].query.head), ("document", "")):
            result = embedder.encode(texts, role=role)  # type: ignore[arg-type] # both are roles
            for text, vector, cut in zip(texts, result.vectors, result.truncated, strict=True):
                body = tokenizer.encode(head + text, add_special_tokens=False).ids
                assert cut == (len(body) + len(tail) > LIMIT)
                ids = torch.tensor([[*body[: LIMIT - len(tail)], *tail]])
                with torch.inference_mode():
                    expected = model(input_ids=ids).last_hidden_state[0, -1].numpy()
                np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-5)
            assert result.truncated[-1]
            assert not result.truncated.all()
        assert embedder.render("x", role="document") == "x" + TAIL


def test_a_limit_that_the_tail_fills_leaves_no_room(spec: EmbeddingSpec) -> None:
    with (
        Embedder(NAME, dtype="float32", max_tokens=6, truncate="silent") as embedder,
        pytest.raises(InputTooLongError, match="no room"),
    ):
        embedder.embed_documents(["some text"])


def test_a_tail_makes_another_space(spec: EmbeddingSpec) -> None:
    with_tail = Embedder(NAME).space
    assert with_tail.document_tail == TAIL
    assert with_tail.id != replace(with_tail, document_tail="").id
    assert "document_tail" not in replace(with_tail, document_tail="").to_json()
    assert type(with_tail).from_json(with_tail.to_json()) == with_tail


def test_records_of_the_former_contract_are_told_what_changed() -> None:
    record = Embedder("embrief/hash").spec
    old = Task("retrieval", "query: ", "")  # type: ignore[arg-type] # what a plugin wrote before
    catalog = plugins().catalog
    with pytest.raises(ArgumentError, match=r"no embrief\.Template but 'query: '.*Template\(head, tail\)"):
        catalog.add_model(replace(record, id="acme/old", aliases=(), prompts=EmbeddingPrompts(tasks=(old,))))
    judge = Reranker("Qwen/Qwen3-Reranker-0.6B").spec
    assert isinstance(judge, RerankerSpec)
    with pytest.raises(ArgumentError, match=r"no embrief\.Template"):
        catalog.add_model(replace(judge, id="acme/old", aliases=(), template="{query}"))  # type: ignore[arg-type]
    assert catalog.find_model("acme/old") is None
    for name in embrief._GONE:
        with pytest.raises(ImportError, match=rf"embrief\.{name} is gone: .*embrief\."):
            getattr(embrief, name)


def test_a_model_of_the_former_contract_is_told_what_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Encodes:
        def encode(self, texts, options):  # type: ignore[no-untyped-def]
            """What a runtime's model had before."""

    with FakeRuntime() as fake:
        monkeypatch.setattr(fake, "_load", lambda model: Encodes())
        with pytest.raises(BackendError, match=r"a Encodes without run\(inputs, options\).*encode and score"):
            Embedder(fake.qwen3).load()
