"""Indexes of texts and pictures: what finds what, and the guard of both stores."""

from __future__ import annotations

import numpy as np
import pytest
from llama_index.core import MockEmbedding, StorageContext, VectorStoreIndex, embeddings, load_index_from_storage
from llama_index.core.indices import MultiModalVectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import ImageDocument, ImageNode, QueryBundle, TextNode

from embrief import ArgumentTypeError, Image, SpaceMismatchError
from embrief.stores import KEY
from llama_index_embrief import Qwen3Embedding, Qwen3VLEmbedding, Qwen3VLRerank, guard, image_query

PICTURES = [Image(np.full((8, 8, 3), number * 40, np.uint8)) for number in range(3)]
STORES = ("default", "image")


def word(image: Image) -> str:
    """What the fake runtime reads in the place of a picture."""
    return f"picture-{image.digest.hex()[:16]}"


@pytest.fixture
def paths(tmp_path):
    found = [tmp_path / f"{number}.png" for number in range(3)]
    for path, image in zip(found, PICTURES, strict=True):
        path.write_bytes(image.to_png())
    return found


@pytest.fixture
def model(fake):
    return Qwen3VLEmbedding(fake.vision)


@pytest.fixture
def nodes(paths):
    texts = [TextNode(id_=f"text {place}", text=f"about {word(image)}") for place, image in enumerate(PICTURES)]
    # With a word of metadata: LlamaIndex leaves nodes without any out when it builds an index.
    images = [
        ImageNode(id_=f"image {place}", image_path=str(path), metadata={"file": path.name})
        for place, path in enumerate(paths)
    ]
    return [*texts, *images]


@pytest.fixture
def index(model, nodes):
    made = MultiModalVectorStoreIndex(nodes, embed_model=model, image_embed_model=model)
    return guard(made, adopt=True)


def found(hits):
    return [hit.node_id for hit in hits]


def one(index, **options):
    return index.as_retriever(similarity_top_k=1, image_similarity_top_k=1, **options)


def test_pictures_are_found_by_words_and_words_by_pictures(index, paths):
    retriever = one(index)
    for place, image in enumerate(PICTURES):
        assert found(retriever.retrieve(word(image))) == [f"text {place}", f"image {place}"]
        assert found(retriever.text_to_image_retrieve(word(image))) == [f"image {place}"]
        assert found(retriever.image_to_image_retrieve(str(paths[place]))) == [f"image {place}"]
        for query in (image_query(paths[place]), image_query(image, "about")):
            assert found(retriever.retrieve(query)) == [f"text {place}", f"image {place}"]
    assert isinstance(index, MultiModalVectorStoreIndex)


async def test_without_blocking(index, paths):
    retriever = one(index)
    assert found(await retriever.aretrieve(image_query(paths[1]))) == ["text 1", "image 1"]
    assert found(await retriever.aretrieve(word(PICTURES[1]))) == ["text 1", "image 1"]
    assert found(await retriever.aimage_to_image_retrieve(str(paths[1]))) == ["image 1"]


async def test_an_index_built_by_its_async_path(model, nodes):
    made = MultiModalVectorStoreIndex(nodes, embed_model=model, image_embed_model=model, use_async=True)
    assert found(one(guard(made, adopt=True)).retrieve(word(PICTURES[2]))) == ["text 2", "image 2"]


def test_found_pictures_are_reranked(index, fake):
    hits = index.as_retriever(similarity_top_k=3, image_similarity_top_k=3).retrieve("about")
    assert len(hits) == 6
    rerank = Qwen3VLRerank(fake.vision_reranker, top_n=2)
    assert set(found(rerank.postprocess_nodes(hits, query_str=word(PICTURES[2])))) == {"text 2", "image 2"}
    assert set(found(rerank.postprocess_nodes(hits, image_query(PICTURES[1])))) == {"text 1", "image 1"}


def test_a_plain_index_of_nodes_that_were_embedded_as_nodes(model, paths):
    documents = [
        ImageDocument(id_=f"image {place}", image_path=str(path), metadata={"file": path.name}, text=" ")
        for place, path in enumerate(paths)
    ]
    embedded = IngestionPipeline(transformations=[model]).run(documents=documents)
    index = guard(VectorStoreIndex(embedded, embed_model=model), adopt=True)
    retriever = index.as_retriever(similarity_top_k=1)
    assert found(retriever.retrieve(word(PICTURES[1]))) == ["image 1"]
    assert found(retriever.retrieve(image_query(paths[2]))) == ["image 2"]
    vector = model.get_image_query_embedding(PICTURES[0])
    assert found(retriever.retrieve(QueryBundle("", embedding=vector))) == ["image 0"]


def test_both_stores_are_stamped_also_by_what_comes_later(index, paths, nodes):
    index.insert_nodes([ImageNode(image_path=str(paths[0]), text="a caption")])
    for store, count in zip(STORES, (4, 4), strict=True):
        records = index.storage_context.vector_stores[store].data.metadata_dict
        assert len(records) == count
        assert all(KEY in record for record in records.values())


def test_both_stores_are_compared_after_they_were_persisted(index, model, tmp_path):
    index.storage_context.persist(str(tmp_path / "kept"))

    def load(texts, images):
        storage = StorageContext.from_defaults(persist_dir=str(tmp_path / "kept"))
        return load_index_from_storage(storage, embed_model=texts, image_embed_model=images)

    assert found(one(guard(load(model, model))).retrieve(word(PICTURES[0]))) == ["text 0", "image 0"]
    other = model.model_copy(update={"normalize": False})
    with pytest.raises(SpaceMismatchError, match="this VectorStoreIndex"):
        guard(load(other, model))
    with pytest.raises(SpaceMismatchError, match="the image store"):
        guard(load(model, other))


def test_vectors_without_a_stamp_are_refused_and_nothing_is_changed(model, nodes):
    made = MultiModalVectorStoreIndex(nodes, embed_model=model, image_embed_model=model)
    before = dict(made.storage_context.vector_stores)
    with pytest.raises(SpaceMismatchError):
        guard(made)
    only_texts = guard(MultiModalVectorStoreIndex(nodes, embed_model=model, image_embed_model=model), adopt=True)
    assert type(made) is MultiModalVectorStoreIndex
    assert dict(made.storage_context.vector_stores) == before
    for record in made.image_vector_store.data.metadata_dict.values():
        assert KEY not in record
    assert only_texts.image_vector_store is only_texts.storage_context.vector_stores["image"]


def test_texts_and_pictures_may_come_one_after_the_other(model, nodes):
    index = guard(MultiModalVectorStoreIndex([], embed_model=model, image_embed_model=model))
    assert (index.is_text_vector_store_empty, index.is_image_vector_store_empty) == (True, True)
    assert one(index).retrieve(word(PICTURES[0])) == []
    for node in nodes:
        index.insert_nodes([node])
    assert found(one(index).retrieve(word(PICTURES[0]))) == ["text 0", "image 0"]


def test_each_store_has_a_model_of_its_own(model, nodes, fake):
    texts = Qwen3Embedding(fake.qwen3, dim=32)
    index = guard(MultiModalVectorStoreIndex(nodes, embed_model=texts, image_embed_model=model), adopt=True)
    retriever = one(index)
    assert found(retriever.retrieve(word(PICTURES[1]))) == ["text 1", "image 1"]
    with pytest.raises(SpaceMismatchError, match="the image store"):
        index._image_embed_model = model.with_dim(32)
    with pytest.raises(SpaceMismatchError, match="this VectorStoreIndex"):
        index._embed_model = model
    index._embed_model = Qwen3Embedding(fake.qwen3, dim=32)
    index._image_embed_model = Qwen3VLEmbedding(fake.vision)


def _foreign():
    # The lowest llama-index-core has no such class.
    mock = getattr(embeddings, "MockMultiModalEmbedding", None)
    return MockEmbedding(64) if mock is None else mock(64)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("kind", ["width", "space", "foreign"])
def test_another_model_is_refused_on_write_and_query(index, model, paths, store, kind):
    other = {
        "width": model.with_dim(32),
        "space": model.model_copy(update={"normalize": False}),
        "foreign": MockEmbedding(64) if store == "default" else _foreign(),
    }[kind]
    name = {"default": "_embed_model", "image": "_image_embed_model"}[store]
    with pytest.raises(SpaceMismatchError):
        setattr(index, name, other)
    index.__dict__[name] = other
    count = len(index.storage_context.vector_stores[store].data.embedding_dict)
    for call in (
        lambda: index.insert_nodes([ImageNode(image_path=str(paths[0]), text="a caption")]),
        lambda: index.as_retriever(),
    ):
        with pytest.raises(SpaceMismatchError):
            call()
    assert len(index.storage_context.vector_stores[store].data.embedding_dict) == count


def test_a_vector_of_another_width_is_refused_by_the_store_of_images(index, paths):
    node = ImageNode(image_path=str(paths[0]), embedding=[1.0] * 5)
    with pytest.raises(SpaceMismatchError, match="the image store of this MultiModalVectorStoreIndex"):
        index.insert_nodes([node])


def test_a_guarded_index_guards_once_more_and_makes_no_unguarded_one(index, model):
    assert guard(index) is index
    with pytest.raises(ArgumentTypeError, match="use MultiModalVectorStoreIndex"):
        type(index).from_documents([], embed_model=model, image_embed_model=model)
