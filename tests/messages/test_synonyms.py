"""Keywords that people bring from other libraries get "here it is ...", in the words of the class they are given to."""

import pytest
from qdrant_client import QdrantClient, models

from chroma_embrief import Qwen3EmbeddingFunction
from embrief import ArgumentError, ArgumentTypeError, Embedder, Reranker
from embrief.facades.arguments import keywords
from embrief.facades.synonyms import SYNONYMS
from langchain_embrief import Qwen3Embeddings, Qwen3Reranker
from llama_index_embrief import Qwen3Embedding, Qwen3Rerank
from qdrant_embrief import attach, create_collection

EMBEDDERS = [Embedder, Qwen3Embeddings, Qwen3Embedding, Qwen3EmbeddingFunction]
RERANKERS = [Reranker, Qwen3Reranker, Qwen3Rerank]
MODEL = {Qwen3Embedding: "model_name", Qwen3EmbeddingFunction: "model_name"}

BOTH = {
    "max_length": "max_tokens", "max_seq_length": "max_tokens", "cache_folder": "cache_dir",
    "batch_size": "batch_tokens", "query_instruction": "instruction", "query_prompt": "instruction",
    "torch_dtype": "dtype", "device_map": "device",
}  # fmt: skip
OF_VECTORS = {"dimensions": "dim", "truncate_dim": "dim", "dims": "dim", "normalize_embeddings": "normalize"}
ELSEWHERE = {
    "model_kwargs": "dtype=", "encode_kwargs": "normalize=", "show_progress_bar": "progress=True",
    "show_progress": "progress=True", "prompt_name": "task=", "text_instruction": "task=", "token": "HF_TOKEN",
}  # fmt: skip


def said(kind, name, **more):
    with pytest.raises(ArgumentTypeError) as caught:
        kind(**{name: 1}, **more)
    return str(caught.value)


@pytest.mark.parametrize("kind", [*EMBEDDERS, *RERANKERS])
def test_a_synonym_is_answered_with_our_word(kind):
    for name, ours in {**BOTH, **(OF_VECTORS if kind in EMBEDDERS else {})}.items():
        assert f"{name}: here it is {ours}=" in said(kind, name)
    for name, words in ELSEWHERE.items():
        answer = said(kind, name).partition(f"{name}: here ")[2]
        assert words in answer


@pytest.mark.parametrize("kind", [*EMBEDDERS, *RERANKERS])
def test_the_model_is_called_what_the_class_calls_it(kind):
    own = MODEL.get(kind, "model")
    for name in {"model_name_or_path", "model_id", "repo_id", "model", "model_name"} - {own}:
        assert f"{name}: here it is {own}=" in said(kind, name)


@pytest.mark.parametrize("kind", [*EMBEDDERS, *RERANKERS])
def test_words_about_a_server_are_answered_with_its_options(kind):
    for name in ("base_url", "api_base", "host", "url", "endpoint"):
        assert f"{name}: here it is backend= " in (answer := said(kind, name))
        assert "(base_url=...)" in answer
    assert "api_key: here it is backend= (options that name the key's variable: OpenAI(api_key_env=" in said(
        kind, "api_key"
    )
    assert "timeout: here it is backend= " in said(kind, "timeout")


@pytest.mark.parametrize("kind", [*EMBEDDERS, *RERANKERS])
def test_how_many_to_return(kind):
    where = "here it is top_n=" if kind in RERANKERS else "here it is top_n= of the methods that rerank"
    assert f"top_k: {where}" in said(kind, "top_k")
    if kind not in RERANKERS:
        assert f"top_n: {where}" in said(kind, "top_n")


def test_a_word_that_the_framework_has_is_taken():
    """Guards the others: one table serves classes with different keywords."""
    assert Qwen3Embedding("embrief/hash", embed_batch_size=10).embed_batch_size == 10
    assert "embed_batch_size: here it is batch_tokens=" in said(Embedder, "embed_batch_size")
    assert Qwen3Rerank(top_n=3).top_n == 3


def test_a_word_for_what_a_reranker_does_not_have_is_not_promised():
    for kind in RERANKERS:
        assert "dim=" not in said(kind, "dimensions")


@pytest.mark.parametrize(
    "make",
    [
        lambda **wrong: Qwen3Embedding.from_dict({"model_name": "embrief/hash", **wrong}),
        lambda **wrong: Qwen3Embedding("embrief/hash").model_copy(update=wrong),
        lambda **wrong: Qwen3Embeddings("embrief/hash").model_copy(update=wrong),
        lambda **wrong: Qwen3Embeddings.model_validate({"model": "embrief/hash", **wrong}),
        lambda **wrong: Qwen3Embeddings(**{"model": "embrief/hash"}, **wrong),
    ],
    ids=["from_dict", "LlamaIndex copy", "LangChain copy", "model_validate", "constructor"],
)
def test_on_every_way_into_a_pydantic_model(make):
    with pytest.raises(ArgumentTypeError, match="max_length: here it is max_tokens="):
        make(max_length=5)


def test_several_at_once_are_all_answered():
    with pytest.raises(
        ArgumentTypeError, match=r"max_length: here it is max_tokens=.*cache_folder: here it is cache_dir="
    ):
        Embedder(max_length=5, cache_folder="x")


def test_in_qdrants_options():
    client = attach(QdrantClient(":memory:"), Embedder("embrief/hash"))
    create_collection(client, "docs", Embedder("embrief/hash"))
    document = models.Document(text="a", model="embrief/hash", options={"dimensions": 64})
    with pytest.raises(ArgumentError, match="dimensions: here it is mrl="):
        client.query_points("docs", query=document)
    client.close()


def test_the_table_names_keywords_that_exist():
    known = {*keywords(Embedder), *keywords(Reranker), "model", "top_n", ""}
    for name, meaning in SYNONYMS.items():
        assert meaning.keyword in known
        assert meaning.keyword or meaning.note
        # A reranker is told of what people mean by `cache`, which only embedders have.
        assert name not in known - {"model", "top_n", "cache"}
    assert len(SYNONYMS) > 60
