"""What observability tools see of the embeddings: events, callbacks, spans."""

from __future__ import annotations

import json

import pytest
from llama_index.core.callbacks import CallbackManager

from embrief.testing import FakeRuntime
from llama_index_embrief import Qwen3Embedding


async def test_start_and_end_events_come_in_pairs(fake: FakeRuntime, events) -> None:
    embed_model = Qwen3Embedding(fake.qwen3, embed_batch_size=2)
    vector = embed_model.get_query_embedding("q", instruction="Find moons")
    assert events.names() == ["EmbeddingStartEvent", "EmbeddingEndEvent"]
    assert events.events[0].model_dict["instruction"] == "Find moons"
    assert events.events[1].chunks == ["q"]  # the user's text, not the rendered one
    assert events.events[1].embeddings == [vector]
    events.events.clear()
    await embed_model.aget_query_embedding("q")
    embed_model.get_text_embedding("t")
    await embed_model.aget_text_embedding("t")
    embed_model.get_text_embedding_batch(["a", "b", "c"])
    assert events.names() == ["EmbeddingStartEvent", "EmbeddingEndEvent"] * 5


def test_a_query_makes_one_span_although_the_method_is_overridden(fake: FakeRuntime, spans) -> None:
    Qwen3Embedding(fake.qwen3).get_query_embedding("q", instruction="Find moons")
    assert spans.entered == ["Qwen3Embedding.get_query_embedding", "Qwen3Embedding._get_query_embedding"]


async def test_an_async_query_makes_one_span(fake: FakeRuntime, spans) -> None:
    await Qwen3Embedding(fake.qwen3).aget_query_embedding("q")
    assert spans.entered == ["Qwen3Embedding.aget_query_embedding", "Qwen3Embedding._aget_query_embedding"]


async def test_legacy_callbacks(fake: FakeRuntime, legacy) -> None:
    embed_model = Qwen3Embedding(fake.qwen3, callback_manager=CallbackManager([legacy]))
    embed_model.with_dim(16).get_query_embedding("q", instruction="x")
    await embed_model.aget_text_embedding_batch(["a", "b"])
    assert [name for name, _ in legacy.started] == ["embedding", "embedding"]
    assert [payload["chunks"] for _, payload in legacy.ended] == [["q"], ["a", "b"]]


def test_callback_manager_can_be_replaced_as_indexes_do(fake: FakeRuntime, legacy) -> None:
    embed_model = Qwen3Embedding(fake.qwen3)
    embed_model.callback_manager = CallbackManager([legacy])
    embed_model.get_query_embedding("q")
    assert len(legacy.ended) == 1


def test_payload_names_the_vectors_and_holds_no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    embed_model = Qwen3Embedding(dim=256, instruction="Find moons", cache_dir=tmp_path)
    payload = embed_model.to_payload()
    assert payload["class_name"] == "Qwen3Embedding"
    assert payload["model_name"] == "Qwen/Qwen3-Embedding-0.6B"
    assert payload["embed_batch_size"] == 2048
    assert (payload["dim"], payload["instruction"]) == (256, "Find moons")
    text = json.dumps(payload)
    assert "hf_secret" not in text
    assert str(tmp_path) not in text


async def test_payload_is_made_on_the_loop_so_it_reads_nothing(fake: FakeRuntime, monkeypatch) -> None:
    from embrief import Embedder

    def refuse(self):
        raise AssertionError("may choose a device or read files")

    monkeypatch.setattr(Embedder, "fingerprint", property(refuse))
    monkeypatch.setattr(Embedder, "space", property(refuse))
    monkeypatch.setattr(Embedder, "info", refuse)
    embed_model = Qwen3Embedding(fake.qwen3)
    embed_model.to_payload()
    embed_model.to_dict()
    await embed_model.aget_query_embedding("q")


def test_a_failing_model_ends_the_callback_and_raises(fake: FakeRuntime, legacy) -> None:
    def fault(texts) -> None:
        raise RuntimeError("out of memory")

    fake.fault = fault
    embed_model = Qwen3Embedding(fake.qwen3, callback_manager=CallbackManager([legacy]))
    with pytest.raises(RuntimeError, match="out of memory"):
        embed_model.get_query_embedding("q")
    assert len(legacy.ended) == len([name for name, _ in legacy.started if name == "embedding"]) + len(
        [name for name, _ in legacy.started if name == "exception"]
    )
