"""Texts and pictures in one space: the embeddings, the reranker, and what carries pictures to them."""

from __future__ import annotations

import asyncio
import base64
import copy
import io
import pickle
import threading

import chromadb
import numpy as np
import PIL.Image
import pytest
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_core.messages import HumanMessage
from langchain_core.stores import InMemoryByteStore
from langchain_core.vectorstores import InMemoryVectorStore
from qdrant_client import QdrantClient, models

from embrief import ArgumentError, ArgumentTypeError, Embedder, Image, Reranker
from embrief.images import decoding
from embrief.testing import FakeRuntime
from langchain_embrief import (
    Qwen3Embeddings,
    Qwen3Reranker,
    Qwen3VLEmbeddings,
    Qwen3VLReranker,
    guard,
    image_query,
    with_pictures,
)

RED, GREEN, BLUE = PICTURES = [Image(np.full((8, 8, 3), number * 40, np.uint8)) for number in range(3)]
PNG = RED.to_png()
BASE64 = base64.b64encode(PNG).decode()
ADDRESS = f"data:image/png;base64,{BASE64}"
BLOCKS = {
    "standard": {"type": "image", "base64": BASE64, "mime_type": "image/png"},
    "standard with an address": {"type": "image", "url": ADDRESS},
    "earlier standard": {"type": "image", "source_type": "base64", "data": BASE64, "mime_type": "image/png"},
    "OpenAI": {"type": "image_url", "image_url": {"url": ADDRESS}},
    "OpenAI, short": {"type": "image_url", "image_url": ADDRESS},
    "Anthropic": {"type": "image", "source": {"type": "base64", "data": BASE64, "media_type": "image/png"}},
}
REMOTE = "https://user:secret@example.org/a.png"


def word(image: Image) -> str:
    """What the fake runtime reads in the place of a picture."""
    return f"picture-{image.digest.hex()[:16]}"


@pytest.fixture
def fake():
    with FakeRuntime() as runtime:
        yield runtime


@pytest.fixture
def embeddings(fake):
    return Qwen3VLEmbeddings(fake.vision)


@pytest.fixture
def reranker(fake):
    return Qwen3VLReranker(fake.vision_reranker)


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "red.png"
    made.write_bytes(PNG)
    return made


@pytest.fixture
def broken(tmp_path):
    made = tmp_path / "broken.png"
    made.write_bytes(PNG[:40])
    return made


def photos():
    # With a letter that is not ASCII, which some look at more closely.
    return [Document(f"phöto {place}", metadata={"image": image}) for place, image in enumerate(PICTURES)]


def test_the_default_models():
    assert Qwen3VLEmbeddings().model == "Qwen/Qwen3-VL-Embedding-2B"
    assert Qwen3VLReranker().model == "Qwen/Qwen3-VL-Reranker-2B"


def test_pictures_have_the_vectors_that_the_facade_gives_them(embeddings, path):
    forms = [path, str(path), PNG, io.BytesIO(PNG), PIL.Image.open(path), np.zeros((8, 8, 3), np.uint8), RED]
    expected = embeddings.embedder.embed_documents([RED] * len(forms)).tolist()
    assert embeddings.embed_images(forms) == expected
    assert asyncio.run(embeddings.aembed_images(forms)) == expected
    assert embeddings.embed_image(uris=[str(path)]) == expected[:1]
    assert embeddings.embed_images(image for image in [RED]) == expected[:1]
    assert embeddings.embed_images([]) == []


def test_one_broken_picture_is_an_error_before_anything_is_computed(embeddings, fake, broken):
    documents = [Document("a"), Document("b", metadata={"image": broken})]
    for call in (
        lambda: embeddings.embed_images([RED, broken]),
        lambda: asyncio.run(embeddings.aembed_images([RED, broken])),
        lambda: embeddings.embed_documents(documents),
        lambda: asyncio.run(embeddings.aembed_documents(documents)),
        lambda: InMemoryVectorStore(embeddings).add_documents(with_pictures(documents)),
    ):
        with pytest.raises(ArgumentError, match=r"\[1\]: the picture cannot be read") as caught:
            call()
        assert caught.value.index == 1
    assert fake.texts == []


def test_queries_with_pictures(embeddings, fake):
    expected = embeddings.embedder.embed_query((RED, "by night"), instruction="Find the place").tolist()
    view = embeddings.with_instruction("Find the place")
    blocks = [{"type": "text", "text": "by night"}, BLOCKS["OpenAI"]]
    for query in (
        image_query(RED, "by night"),
        [RED, "by night"],
        {"image": RED, "text": "by night"},
        blocks,
        HumanMessage(content=blocks),
        Document("by night", metadata={"image": BASE64}),
    ):
        assert view.embed_query(query) == expected
        assert asyncio.run(view.aembed_query(query)) == expected
    assert embeddings.embed_image_query(RED, "by night", instruction="Find the place") == expected
    assert asyncio.run(embeddings.aembed_image_query(RED, "by night", instruction="Find the place")) == expected
    assert {"Find the place" in text for text in fake.texts} == {True}
    assert embeddings.embed_query(image_query(RED)) == embeddings.embed_query(RED)


@pytest.mark.parametrize("form", BLOCKS)
def test_content_blocks_of_all_providers(embeddings, reranker, form):
    block = BLOCKS[form]
    expected = embeddings.embedder.embed_documents([(RED, "by night")]).tolist()
    for blocks in (["by night", block], [{"type": "text", "text": "by night"}, block]):
        assert embeddings.embed_documents([blocks]) == expected
        assert embeddings.embed_documents([HumanMessage(content=blocks)]) == expected
    document = Document("by night", metadata={"image": block})
    assert embeddings.embed_documents([document]) == expected
    assert embeddings.embed_documents([Document("by night", metadata={"image": [block]})]) == expected
    assert reranker.compress_documents([document], word(RED))[0].metadata["relevance_score"] == pytest.approx(0.5)


def test_messages_of_texts_alone_are_texts(embeddings):
    expected = embeddings.embed_documents(["a b"])
    for form in (["a ", "b"], {"text": "a b"}, {"text": "a b", "image": None}, {"text": "a b", "image": []}):
        assert embeddings.embed_documents([form]) == expected
    assert embeddings.embed_documents([{"text": None, "image": RED}]) == embeddings.embed_images([RED])
    assert embeddings.embed_documents([HumanMessage(content="a b")]) == expected
    assert embeddings.embed_documents([[{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]]) == expected
    assert embeddings.embed_documents([Document("a b")]) == expected


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (["a", {"type": "image_url", "image_url": {"url": REMOTE}}], r"texts\[1\]: an address \(https://"),
        (["a", {"type": "image", "url": REMOTE}], "not fetched"),
        (["a", {"type": "image", "file_id": "f"}], r"texts\[1\]: a picture without its bytes"),
        (
            ["a", {"type": "audio", "base64": BASE64, "mime_type": "audio/wav"}],
            r"texts\[1\] has a block of type 'audio'",
        ),
        (["a", {"type": "foo"}], "block of type 'foo'"),
        (["a", {"type": "text"}], r"texts\[1\] has a block of type 'text' without a string"),
        ([{"type": "text", "text": None}], "without a string"),
        ([RED, {"type": "text", "text": "a"}], r"texts\[1\] mixes"),
        (Document("a", metadata={"image": REMOTE}), r"picture of documents\[1\]: an address"),
        (Document("a", metadata={"image": "red.png"}), "no base64"),
        (Document("a", metadata={"image": {"type": "text", "text": "a"}}), "a content block of a text"),
        (3, "int"),
        ([], "neither a text nor a picture"),
        ({"image": None}, "neither a text nor a picture"),
        (HumanMessage(content=[]), r"texts\[1\] is a message that holds neither a text nor a picture"),
    ],
)
def test_what_is_no_picture_and_no_text_is_refused_with_its_index(embeddings, value, match):
    with pytest.raises((ArgumentError, ArgumentTypeError), match=match) as caught:
        embeddings.embed_documents(["a", value])
    assert caught.value.index == 1
    assert "secret" not in str(caught.value)


def test_a_path_in_metadata_is_never_read(embeddings, path):
    for value in (str(path), path.as_uri()):
        with pytest.raises(ArgumentError, match=r"no base64|not fetched"):
            embeddings.embed_documents([Document("a", metadata={"image": value})])
    assert embeddings.embed_documents([Document("", metadata={"image": path})]) == embeddings.embed_images([RED])


def test_with_pictures_leaves_the_documents_as_they_are(path):
    given = [Document("a", metadata={"image": RED}, id="1"), Document("b")]
    ready = with_pictures(given)
    assert [document.page_content for document in ready] == ["a", "b"]
    assert (ready[0].id, ready[0].metadata) == ("1", given[0].metadata)
    assert ready[1] is given[1]
    assert type(given[0].page_content) is str
    assert with_pictures(ready)[0] is ready[0]
    own = with_pictures([Document("a", metadata={"source": str(path)})], image=lambda document: path)
    assert own[0].page_content.images == (RED,)


def stores(embeddings):
    chroma_store = pytest.importorskip("langchain_chroma").Chroma
    qdrant_store = pytest.importorskip("langchain_qdrant").QdrantVectorStore
    yield "memory", InMemoryVectorStore(embeddings)
    yield "guarded", guard(InMemoryVectorStore(embeddings))
    client = QdrantClient(":memory:")
    client.create_collection("photos", models.VectorParams(size=64, distance=models.Distance.COSINE))
    yield "qdrant", qdrant_store(client=client, collection_name="photos", embedding=embeddings)
    chroma = chromadb.EphemeralClient()
    name = embeddings.model.replace("/", "-")
    yield "chroma", chroma_store(client=chroma, collection_name=name, embedding_function=embeddings)


def test_pictures_are_found_by_words_and_words_by_pictures_in_every_store(embeddings):
    for name, store in stores(embeddings):
        documents = with_pictures(photos(), image=lambda document: document.metadata["image"])
        for document in documents:
            document.metadata = {}
        store.add_documents([*documents, Document(f"about {word(GREEN)}")])
        retriever = store.as_retriever(search_kwargs={"k": 1})
        assert retriever.invoke(word(RED))[0].page_content == "phöto 0", name
        assert retriever.invoke(image_query(BLUE))[0].page_content == "phöto 2", name
        assert asyncio.run(retriever.ainvoke(image_query(BLUE)))[0].page_content == "phöto 2", name
        assert retriever.invoke(image_query(GREEN, "about"))[0].page_content == f"about {word(GREEN)}", name
        by_vector = store.similarity_search_by_vector(embeddings.embed_image_query(RED), k=1)
        assert by_vector[0].page_content == "phöto 0", name


def test_without_blocking(embeddings):
    store = guard(InMemoryVectorStore(embeddings))
    asyncio.run(store.aadd_documents(with_pictures(photos())))
    found = asyncio.run(store.asimilarity_search(word(GREEN), k=1))
    assert found[0].metadata["image"] == GREEN


def test_a_store_with_pictures_survives_its_file(embeddings, tmp_path):
    store = guard(InMemoryVectorStore(embeddings))
    store.add_documents(with_pictures([Document("phöto", metadata={"image": BASE64}), Document("text")]))
    store.dump(str(tmp_path / "store.json"))
    loaded = guard(InMemoryVectorStore.load(str(tmp_path / "store.json"), embeddings))
    assert loaded.similarity_search(image_query(RED), k=1)[0].page_content == "phöto"


def test_caches_and_record_managers_of_texts_refuse_pictures_instead_of_mixing_them(embeddings, fake):
    cached = CacheBackedEmbeddings.from_bytes_store(
        embeddings, InMemoryByteStore(), namespace=embeddings.cache_namespace(), key_encoder="sha256"
    )
    store, manager = InMemoryVectorStore(embeddings), InMemoryRecordManager(namespace="photos")
    manager.create_schema()
    for call in (
        lambda: InMemoryVectorStore(cached).add_documents(with_pictures(photos())),
        lambda: index(with_pictures(photos()), manager, store, key_encoder="sha256"),
    ):
        with pytest.raises(ArgumentError, match="one picture for another"):
            call()
    assert fake.texts == []


def test_chromas_own_way_to_add_images(embeddings, path):
    name = embeddings.model.replace("/", "-")
    chroma_store = pytest.importorskip("langchain_chroma").Chroma
    store = chroma_store(client=chromadb.EphemeralClient(), collection_name=name, embedding_function=embeddings)
    store.add_images([str(path)], metadatas=[{"source": "red.png"}])
    store.add_texts(["something else"])
    assert store.similarity_search(word(RED), k=1)[0].metadata == {"source": "red.png"}
    assert store.similarity_search_by_image(str(path), k=1)[0].metadata == {"source": "red.png"}


def test_a_pipeline_finds_and_reranks_pictures(embeddings, reranker):
    store = InMemoryVectorStore(embeddings)
    store.add_documents(with_pictures([*photos(), Document("a text")]))
    pipeline = ContextualCompressionRetriever(
        base_compressor=reranker.model_copy(update={"top_n": 1}), base_retriever=store.as_retriever()
    )
    for query in (word(GREEN), image_query(GREEN), image_query(GREEN, "photo")):
        for found in (pipeline.invoke(query), asyncio.run(pipeline.ainvoke(query))):
            assert [document.metadata["image"] for document in found] == [GREEN]


def test_the_reranker_reads_texts_and_pictures(reranker, fake):
    documents = [Document("a planet"), Document("", metadata={"image": RED}), *with_pictures(photos())[1:]]
    expected = Reranker(fake.vision_reranker).score("phöto", ["a planet", RED, (GREEN, "phöto 1"), (BLUE, "phöto 2")])
    found = reranker.compress_documents(documents, "phöto")
    assert sorted(document.metadata["relevance_score"] for document in found) == sorted(expected.tolist())
    blocks = [BLOCKS["standard"]]
    for query in (word(RED), image_query(RED), blocks, HumanMessage(content=blocks)):
        for found in (
            reranker.compress_documents(documents, query, top_n=1),
            asyncio.run(reranker.acompress_documents(documents, query, top_n=1)),
        ):
            assert found[0].page_content == ""
            assert found[0].metadata["image"] is RED
    scores = reranker.score([("phöto", documents[2]), (image_query(RED), RED), ("a", "b")])
    assert (
        scores
        == Reranker(fake.vision_reranker).score_pairs([("phöto", (GREEN, "phöto 1")), (RED, RED), ("a", "b")]).tolist()
    )


def test_a_broken_picture_of_a_document_or_query_is_refused(reranker, fake, broken):
    documents = [Document("a"), Document("b", metadata={"image": broken})]
    with pytest.raises(ArgumentError, match=r"documents\[1\]: the picture cannot be read") as caught:
        reranker.compress_documents(documents, "a")
    assert caught.value.index == 1
    remote = Document("b", metadata={"image": REMOTE})
    with pytest.raises(ArgumentError, match=r"documents\[1\]: an address") as caught:
        reranker.compress_documents([documents[0], remote], "a")
    assert caught.value.index == 1
    with pytest.raises(ArgumentError, match="query: the picture cannot be read"):
        reranker.compress_documents(documents[:1], image_query(broken))
    assert fake.pairs == []


def test_a_text_model_refuses_pictures_and_old_classes_see_what_their_model_sees(fake, reranker):
    blind = Qwen3VLEmbeddings(fake.qwen3)
    for call in (
        lambda: blind.embed_images([RED]),
        lambda: blind.embed_documents(photos()),
        lambda: InMemoryVectorStore(blind).add_documents(with_pictures(photos())),
        lambda: InMemoryVectorStore(Qwen3Embeddings(fake.qwen3)).add_documents(with_pictures(photos())),
        lambda: Qwen3VLReranker(fake.reranker).compress_documents(photos(), "a"),
        lambda: Qwen3Reranker(fake.reranker).compress_documents(with_pictures(photos()), "a"),
        lambda: Qwen3Reranker(fake.reranker).compress_documents([Document(" ", metadata={"image": RED})], "a"),
        lambda: Qwen3Reranker(fake.reranker).compress_documents([Document("", metadata={"image": "iVBO"})], "a"),
    ):
        with pytest.raises(ArgumentTypeError, match=r"takes texts only; one that takes images is ") as caught:
            call()
        assert caught.value.index == 0
    assert blind.embed_documents(["a"]) == Qwen3Embeddings(fake.qwen3).embed_documents(["a"])
    old = Qwen3Embeddings(fake.vision)
    assert old.embed_query("a") == Qwen3VLEmbeddings(fake.vision).embed_query("a")
    texts = [document.page_content for document in with_pictures(photos())]
    seen = [(image, f"phöto {place}") for place, image in enumerate(PICTURES)]
    assert old.embed_documents(texts) == Embedder(fake.vision).embed_documents(seen).tolist()
    by_old, by_new = (
        kind(fake.vision_reranker).compress_documents(photos(), word(RED)) for kind in (Qwen3Reranker, Qwen3VLReranker)
    )
    assert by_old == by_new
    # As ever: the text is what a text model sees of a document.
    assert len(Qwen3Reranker(fake.reranker).compress_documents(photos(), "phöto")) == 3
    assert len(Qwen3Reranker(fake.reranker).compress_documents([Document("")], "phöto")) == 1


def test_configuration_travels(fake):
    embeddings = Qwen3VLEmbeddings(fake.vision, max_pixels=200_000, special_tokens="text", dim=16)
    reranker = Qwen3VLReranker(fake.vision_reranker, max_pixels=200_000, top_n=1)
    for made in (embeddings, reranker):
        for twin in (
            type(made)(**made.model_dump()),
            pickle.loads(pickle.dumps(made)),
            copy.deepcopy(made),
            made.model_copy(),
        ):
            assert twin == made
            assert type(twin) is type(made)
            assert twin._facade.max_pixels == 200_000
        assert made.with_instruction("x").max_pixels == 200_000
        assert made.model_copy(update={"max_pixels": 100_000})._facade.max_pixels == 100_000
        assert f"max_pixels={200_000}" in repr(made)
    assert embeddings.cache_namespace() != embeddings.model_copy(update={"max_pixels": 100_000}).cache_namespace()


def test_a_model_of_the_other_kind_names_the_class_for_it(fake):
    with pytest.raises(ArgumentError, match="Qwen3VLReranker"):
        Qwen3VLEmbeddings(fake.vision_reranker)
    with pytest.raises(ArgumentError, match="Qwen3VLEmbeddings"):
        Qwen3VLReranker(fake.vision)


async def test_pictures_are_decoded_off_the_event_loop(embeddings, reranker, monkeypatch):
    threads = set()
    decode = decoding.decode

    def watched(*args):
        threads.add(threading.current_thread())
        return decode(*args)

    monkeypatch.setattr(decoding, "decode", watched)
    document = Document("", metadata={"image": BASE64})
    for call in (
        lambda: embeddings.aembed_images([PNG]),
        lambda: embeddings.aembed_image_query(PNG),
        lambda: embeddings.aembed_documents([document]),
        lambda: reranker.acompress_documents([document], image_query(PNG)),
    ):
        await call()
        assert threads
        assert threading.main_thread() not in threads
        threads.clear()
