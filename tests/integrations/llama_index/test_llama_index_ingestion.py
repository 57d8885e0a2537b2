"""The ingestion cache: its key covers all that moves document vectors, and nothing else."""

from __future__ import annotations

import shutil

import pytest
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.ingestion.pipeline import get_transformation_hash
from llama_index.core.schema import TextNode

from embrief.testing import FakeRuntime
from llama_index_embrief import GemmaEmbedding, Qwen3Embedding

NODES = [TextNode(id_="1", text="red planet", metadata={"title": "Mars"})]


def key(embed_model) -> str:
    return get_transformation_hash(NODES, embed_model)


VECTOR_CHANGES = [{"dim": 16}, {"normalize": False}, {"max_tokens": 50}, {"task": "sentence_similarity"}]  # fmt: skip


@pytest.mark.parametrize("change", VECTOR_CHANGES, ids=str)
def test_what_changes_vectors_changes_the_key(fake: FakeRuntime, change: dict) -> None:
    assert key(Qwen3Embedding(fake.qwen3, **change)) != key(Qwen3Embedding(fake.qwen3))


def test_model_and_title_key_change_the_key(fake: FakeRuntime) -> None:
    keys = {
        key(GemmaEmbedding(fake.gemma)),
        key(GemmaEmbedding(fake.qwen3)),
        key(GemmaEmbedding(fake.gemma, title_metadata_key="title")),
    }
    assert len(keys) == 3


def test_number_format_changes_the_key() -> None:
    pytest.importorskip("torch", reason="resolving a number format needs torch")
    keys = {key(Qwen3Embedding(device="cpu", dtype=dtype)) for dtype in ("float32", "bfloat16")}
    assert len(keys) == 2


def test_what_auto_becomes_counts_not_the_word() -> None:
    pytest.importorskip("torch", reason="resolving a number format needs torch")
    embed_model = Qwen3Embedding(device="cpu", dtype="auto")
    resolved = embed_model.embedder.info()["dtype"]
    assert key(embed_model) == key(Qwen3Embedding(device="cpu", dtype=resolved))


RUNTIME_CHANGES = [
    {"device": "cpu"}, {"batch_tokens": 100}, {"embed_batch_size": 3}, {"num_workers": 4}, {"cache_dir": "/tmp/x"},
    {"local_files_only": True}, {"instruction": "Find planets"}, {"instruction": ""}, {"task": "code_retrieval"},
    {"max_tokens": 8192}, {"dim": 64}, {"dtype": "float32"},
]  # fmt: skip


@pytest.mark.parametrize("change", RUNTIME_CHANGES, ids=str)
def test_what_does_not_change_document_vectors_does_not_change_the_key(fake: FakeRuntime, change: dict) -> None:
    assert key(Qwen3Embedding(fake.qwen3, **change)) == key(Qwen3Embedding(fake.qwen3))


def test_a_cache_of_embeddings_does_not_change_the_key(fake: FakeRuntime) -> None:
    from llama_index.core.storage.kvstore import SimpleKVStore

    cached = Qwen3Embedding(fake.qwen3, embeddings_cache=SimpleKVStore())
    assert key(cached) == key(Qwen3Embedding(fake.qwen3))
    cached.to_json()  # a live store in the dict would raise here


def test_weights_changed_in_place_change_the_key_and_a_moved_folder_does_not(
    fake: FakeRuntime, minilm_folder, tmp_path
):
    pytest.importorskip("sentence_transformers", reason="a folder needs the runtime that serves it")
    first = shutil.copytree(minilm_folder, tmp_path / "first")
    second = shutil.copytree(minilm_folder, tmp_path / "second")
    same = key(Qwen3Embedding(first, device="cpu"))
    assert key(Qwen3Embedding(second, device="cpu")) == same
    weights = next(second.rglob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    weights.write_bytes(data)
    assert key(Qwen3Embedding(second, device="cpu")) != same


def test_key_is_that_of_the_round_trip_and_stable_across_objects(fake: FakeRuntime) -> None:
    embed_model = GemmaEmbedding(fake.gemma, dim=16, instruction="x", title_metadata_key="title")
    assert key(GemmaEmbedding.from_dict(embed_model.to_dict())) == key(embed_model)
    assert " at 0x" not in str(embed_model.to_dict())


def test_pipeline_with_cache_recomputes_only_when_vectors_would_differ(fake: FakeRuntime) -> None:
    cache = IngestionCache()

    def run(embed_model) -> list[float]:
        nodes = [node.model_copy() for node in NODES]
        return IngestionPipeline(transformations=[embed_model], cache=cache).run(nodes=nodes)[0].embedding

    first = run(Qwen3Embedding(fake.qwen3))
    assert run(Qwen3Embedding(fake.qwen3, instruction="Find planets", device="cpu", batch_tokens=9)) == first
    assert fake.runs == [1]
    assert len(run(Qwen3Embedding(fake.qwen3, dim=16))) == 16
    assert run(GemmaEmbedding(fake.gemma, title_metadata_key="title")) != run(GemmaEmbedding(fake.gemma))
    assert fake.runs == [1, 1, 1, 1]
    assert fake.texts[-2:] == ["title: Mars | text: red planet", "title: none | text: title: Mars\n\nred planet"]


async def test_async_pipeline(fake: FakeRuntime) -> None:
    cache = IngestionCache()
    for _ in range(2):
        pipeline = IngestionPipeline(transformations=[Qwen3Embedding(fake.qwen3)], cache=cache)
        nodes = await pipeline.arun(nodes=[node.model_copy() for node in NODES])
        assert len(nodes[0].embedding) == 64
    assert fake.runs == [1]


def test_pipeline_in_worker_processes() -> None:
    # Transformations are pickled to spawned processes.
    embed_model = Qwen3Embedding("embrief/hash", dim=16)
    nodes = [TextNode(text=f"text {number}") for number in range(4)]
    done = IngestionPipeline(transformations=[embed_model], disable_cache=True).run(nodes=nodes, num_workers=2)
    expected = embed_model.get_text_embedding_batch([node.text for node in nodes])
    assert [node.embedding for node in done] == expected
