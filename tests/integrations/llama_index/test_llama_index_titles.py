"""Nodes with titles, for models that have a place for them."""

from __future__ import annotations

import warnings

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import MetadataMode, TextNode

from embrief import ArgumentError, ArgumentTypeError, Embedder
from embrief.testing import FakeRuntime
from llama_index_embrief import GemmaEmbedding, Qwen3Embedding


def nodes() -> list[TextNode]:
    return [
        TextNode(text="red", metadata={"title": "Mars", "size": "small"}),
        TextNode(text="bright", metadata={"size": "middle"}),
        TextNode(text="cold", metadata={"title": ""}),
    ]


RENDERED = [
    "title: Mars | text: size: small\n\nred",
    "title: none | text: size: middle\n\nbright",
    "title: none | text: cold",
]


def test_titles_reach_the_model_as_titles_and_not_in_the_text(fake: FakeRuntime) -> None:
    embed_model = GemmaEmbedding(fake.gemma, title_metadata_key="title")
    given = nodes()
    assert embed_model(given) is given
    assert fake.texts == RENDERED
    core = Embedder(fake.gemma).embed_documents(
        ["size: small\n\nred", "size: middle\n\nbright", "cold"], titles=["Mars", None, None]
    )
    assert [node.embedding for node in given] == core.tolist()


async def test_async_titles(fake: FakeRuntime, heartbeat) -> None:
    fake.delay = 0.3
    embed_model = GemmaEmbedding(fake.gemma, title_metadata_key="title")
    async with heartbeat() as gaps:
        await embed_model.acall(nodes())
    assert fake.texts == RENDERED
    assert max(gaps) < 0.2


def test_nodes_are_not_changed_but_for_their_vector(fake: FakeRuntime) -> None:
    given = nodes()
    GemmaEmbedding(fake.gemma, title_metadata_key="title")(given)
    for node, before in zip(given, nodes(), strict=True):
        assert node.metadata == before.metadata
        assert node.excluded_embed_metadata_keys == []
        assert node.get_content(MetadataMode.LLM) == before.get_content(MetadataMode.LLM)


def test_a_title_key_excluded_from_the_text_is_still_the_title(fake: FakeRuntime) -> None:
    # Readers exclude `file_name` by default.
    node = TextNode(text="red", metadata={"file_name": "mars.txt"}, excluded_embed_metadata_keys=["file_name"])
    GemmaEmbedding(fake.gemma, title_metadata_key="file_name")([node])
    assert fake.texts == ["title: mars.txt | text: red"]


@pytest.mark.parametrize("kind", [GemmaEmbedding, Qwen3Embedding])
async def test_without_a_title_key_nodes_are_embedded_as_the_framework_does(fake: FakeRuntime, kind) -> None:
    embed_model = kind(fake.qwen3)
    given, other = nodes(), nodes()
    embed_model(given)
    await embed_model.acall(other)
    assert fake.texts[0] == "title: Mars\nsize: small\n\nred"
    assert [node.embedding for node in given] == [node.embedding for node in other]


def test_titles_survive_slicing_and_reach_events_as_plain_texts(fake: FakeRuntime, events) -> None:
    embed_model = GemmaEmbedding(fake.gemma, title_metadata_key="title", embed_batch_size=2)
    embed_model(nodes(), show_progress=True)
    assert fake.texts == RENDERED
    assert events.names() == ["EmbeddingStartEvent", "EmbeddingEndEvent"] * 2
    assert events.events[1].chunks == ["size: small\n\nred", "size: middle\n\nbright"]


def test_a_model_without_a_place_for_titles_says_so(fake: FakeRuntime) -> None:
    with pytest.raises(ArgumentError, match="no place for a title"):
        Qwen3Embedding(fake.qwen3, title_metadata_key="title")(nodes())


def test_a_title_that_is_no_string_is_refused(fake: FakeRuntime) -> None:
    with pytest.raises(ArgumentTypeError, match=r"titles\[0\] is int"):
        GemmaEmbedding(fake.gemma, title_metadata_key="year")([TextNode(text="t", metadata={"year": 2024})])


def test_index_with_the_model_as_a_transformation_keeps_titled_vectors(fake: FakeRuntime) -> None:
    embed_model = GemmaEmbedding(fake.gemma, title_metadata_key="title")
    index = VectorStoreIndex.from_documents(
        [Document(text="the red planet", metadata={"title": "Mars"})],
        transformations=[SentenceSplitter(), embed_model],
        embed_model=embed_model,
    )
    assert fake.texts == ["title: Mars | text: the red planet"]
    assert index.as_retriever().retrieve("red")[0].node.metadata["title"] == "Mars"


def test_titles_that_an_index_cannot_pass_on_are_not_lost_silently(fake: FakeRuntime) -> None:
    embedding = GemmaEmbedding(fake.gemma, title_metadata_key="title")
    with pytest.warns(UserWarning, match="has no effect on these texts"):
        embedding.get_text_embedding_batch(["bare text"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embedding([TextNode(text="body", metadata={"title": "T"})])
