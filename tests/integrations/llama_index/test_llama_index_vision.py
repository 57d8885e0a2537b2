"""Texts and pictures in one space: the embedding, the reranker, and what carries pictures to them."""

from __future__ import annotations

import asyncio
import base64
import copy
import io
import json
import pickle
import threading
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from llama_index.core.embeddings import MultiModalEmbedding
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import (
    Document,
    ImageDocument,
    ImageNode,
    MediaResource,
    Node,
    NodeWithScore,
    QueryBundle,
    TextNode,
)
from llama_index.core.storage.kvstore import SimpleKVStore

from embrief import ArgumentError, ArgumentTypeError, Embedder, Image, Reranker
from embrief.images import decoding
from embrief.testing import FakeRuntime
from llama_index_embrief import (
    GemmaEmbedding,
    Qwen3Embedding,
    Qwen3Rerank,
    Qwen3VLEmbedding,
    Qwen3VLRerank,
    image_query,
)


def picture(number: int) -> Image:
    return Image(np.full((8, 8, 3), number * 40, np.uint8))


RED, GREEN, BLUE = PICTURES = [picture(number) for number in range(3)]


def word(image: Image) -> str:
    """What the fake runtime reads in the place of a picture."""
    return f"picture-{image.digest.hex()[:16]}"


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    found = [tmp_path / f"{number}.png" for number in range(3)]
    for path, image in zip(found, PICTURES, strict=True):
        path.write_bytes(image.to_png())
    return found


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.png"
    path.write_bytes(RED.to_png()[:40])
    return path


@pytest.fixture
def model(fake: FakeRuntime) -> Qwen3VLEmbedding:
    return Qwen3VLEmbedding(fake.vision)


@pytest.fixture
def rerank(fake: FakeRuntime) -> Qwen3VLRerank:
    return Qwen3VLRerank(fake.vision_reranker)


def test_the_classes_are_what_llama_index_expects() -> None:
    assert isinstance(Qwen3VLEmbedding(), (MultiModalEmbedding, Qwen3Embedding))
    assert Qwen3VLEmbedding().model_name == "Qwen/Qwen3-VL-Embedding-2B"
    assert Qwen3VLRerank().model == "Qwen/Qwen3-VL-Reranker-2B"
    assert (Qwen3VLEmbedding.class_name(), Qwen3VLRerank.class_name()) == ("Qwen3VLEmbedding", "Qwen3VLRerank")


def test_a_picture_has_the_vector_that_the_facade_gives_it(model, paths) -> None:
    expected = model.embedder.embed_documents([RED]).tolist()[0]
    png = RED.to_png()
    for form in (
        paths[0],
        str(paths[0]),
        png,
        io.BytesIO(png),
        PIL.Image.open(io.BytesIO(png)),
        np.zeros((8, 8, 3), np.uint8),
        RED,
    ):
        assert model.get_image_embedding(form) == expected
        assert asyncio.run(model.aget_image_embedding(form)) == expected
    assert model._get_image_embedding(RED) == expected
    assert asyncio.run(model._aget_image_embedding(RED)) == expected


def test_pictures_in_batches(model, fake) -> None:
    model.embed_batch_size = 2
    expected = model.embedder.embed_documents(PICTURES).tolist()
    fake.runs.clear()
    assert model.get_image_embedding_batch(PICTURES) == expected
    assert fake.runs == [2, 1]
    assert model.get_image_embedding_batch(image for image in PICTURES) == expected
    assert model.get_image_embedding_batch(PICTURES, show_progress=True) == expected
    assert asyncio.run(model.aget_image_embedding_batch(PICTURES, show_progress=True)) == expected
    assert model.get_image_embedding_batch([]) == []


def test_one_broken_picture_is_an_error_before_anything_is_computed(model, fake, broken) -> None:
    model.embed_batch_size = 1
    nodes = [ImageNode(image_path=str(broken)) if place == 2 else TextNode(text="a") for place in range(4)]
    for call in (
        lambda: model.get_image_embedding_batch([RED, GREEN, broken, BLUE]),
        lambda: asyncio.run(model.aget_image_embedding_batch([RED, GREEN, broken, BLUE])),
        lambda: model(nodes),
        lambda: asyncio.run(model.acall(nodes)),
    ):
        with pytest.raises(ArgumentError, match=r"the picture cannot be read") as caught:
            call()
        assert caught.value.index == 2
    assert fake.texts == []


@pytest.mark.parametrize("value", ["https://example.org/a.png", 3, None])
def test_what_is_no_picture_is_refused_with_its_index(model, value) -> None:
    with pytest.raises((ArgumentError, ArgumentTypeError), match=r"images\[1\]: ") as caught:
        model.get_image_embedding_batch([RED, value])
    assert caught.value.index == 1
    for call in (model.get_image_embedding_batch, lambda images: asyncio.run(model.aget_image_embedding_batch(images))):
        with pytest.raises(ArgumentTypeError, match="images is a list of pictures"):
            call("a.png")


def test_texts_are_as_those_of_the_text_classes(model, fake) -> None:
    old = Qwen3Embedding(fake.vision)
    assert old.get_text_embedding_batch(["a", "b"]) == model.get_text_embedding_batch(["a", "b"])
    assert old.get_query_embedding("a", instruction="Find it") == model.get_query_embedding("a", instruction="Find it")
    assert asyncio.run(model.aget_query_embedding("a")) == model.embedder.embed_query("a").tolist()


def test_queries_with_pictures_get_the_prompt_of_queries(model, fake) -> None:
    expected = model.embedder.embed_query((RED, "by night"), instruction="Find the place").tolist()
    asked = model.get_image_query_embedding(RED, "by night", instruction="Find the place")
    assert asked == expected
    assert fake.texts[-1] == fake.texts[-2]
    assert "Find the place" in fake.texts[-1]
    assert fake.texts[-1].index(word(RED)) < fake.texts[-1].index("by night")
    assert asyncio.run(model.aget_image_query_embedding(RED, "by night", instruction="Find the place")) == expected
    assert model.with_instruction("Find the place").get_image_query_embedding(RED, "by night") == expected
    assert model.get_image_query_embedding(RED) == model.embedder.embed_query(RED).tolist()


def forms_of_nodes(path: Path) -> dict[str, Node | ImageNode]:
    text = base64.b64encode(path.read_bytes()).decode()
    return {
        "path": ImageNode(image_path=str(path), text="red"),
        "base64": ImageNode(image=text, text="red"),
        "data address": ImageNode(image_url=f"data:image/png;base64,{text}", text="red"),
        "document": ImageDocument(image_path=str(path), text="red"),
        "document with base64": ImageDocument(image=text, text="red"),
        "node with bytes": Node(
            image_resource=MediaResource(data=path.read_bytes()), text_resource=MediaResource(text="red")
        ),
        "node with a path": Node(image_resource=MediaResource(path=path), text_resource=MediaResource(text="red")),
    }


def test_nodes_are_embedded_with_picture_and_text_together(model, paths) -> None:
    expected = model.embedder.embed_documents([(RED, "red"), "green", BLUE]).tolist()
    for name, node in forms_of_nodes(paths[0]).items():
        given = [node, TextNode(text="green"), ImageNode(image_path=str(paths[2]))]
        assert [node.embedding for node in model(given)] == expected, name
        assert [node.embedding for node in asyncio.run(model.acall(given))] == expected, name


def test_metadata_of_a_picture_is_text(model, paths) -> None:
    node = ImageNode(image_path=str(paths[0]), text="red", metadata={"place": "Rome", "file": "x"})
    node.excluded_embed_metadata_keys = ["file"]
    model([node])
    assert node.embedding == model.embedder.embed_documents([(RED, "place: Rome\n\nred")]).tolist()[0]


def test_a_node_with_an_address_is_refused(model, rerank) -> None:
    node = ImageNode(image_url="https://example.org/a.png")
    for call in (
        lambda: model([TextNode(text="a"), node]),
        lambda: rerank.postprocess_nodes([NodeWithScore(node=TextNode(text="a")), NodeWithScore(node=node)], None, "q"),
    ):
        with pytest.raises(ArgumentError, match=r"nodes\[1\]: .*not fetched") as caught:
            call()
        assert caught.value.index == 1


def test_a_text_model_refuses_pictures_and_old_classes_see_what_their_model_sees(fake, paths) -> None:
    node = ImageNode(image_path=str(paths[0]), text="red")
    blind = Qwen3VLEmbedding(fake.qwen3)
    for call in (lambda: blind([TextNode(text="a"), node]), lambda: blind.get_image_embedding_batch([RED])):
        with pytest.raises(ArgumentTypeError, match=r"takes texts only; one that takes images is ") as caught:
            call()
    assert caught.value.index == 0
    assert blind.get_text_embedding("a") == Qwen3Embedding(fake.qwen3).get_text_embedding("a")
    # As ever: a caption is what a text model sees.
    assert Qwen3Embedding(fake.qwen3)([node])[0].embedding == Qwen3Embedding(fake.qwen3).get_text_embedding("red")
    seen = Embedder(fake.vision).embed_documents([(RED, "red")]).tolist()[0]
    assert Qwen3Embedding(fake.vision)([node])[0].embedding == seen
    candidates = [NodeWithScore(node=node)]
    with pytest.raises(ArgumentTypeError, match=r"documents\[0\].*takes texts only"):
        Qwen3VLRerank(fake.reranker).postprocess_nodes(candidates, query_str="q")
    assert Qwen3Rerank(fake.reranker).postprocess_nodes(candidates, query_str="red")[0].score == pytest.approx(0.5)


NAKED = [
    lambda path: ImageNode(image_path=path),
    lambda path: ImageNode(image=base64.b64encode(Path(path).read_bytes()).decode(), text=" \n"),
    lambda path: ImageNode(image_url="https://example.org/a.png"),
    lambda path: Node(image_resource=MediaResource(path=Path(path))),
]


@pytest.mark.parametrize("make", NAKED)
def test_a_text_model_refuses_a_picture_without_any_text(fake, paths, make) -> None:
    node, text = make(str(paths[0])), TextNode(text="a")
    embed, rerank = Qwen3Embedding(fake.qwen3), Qwen3Rerank(fake.reranker)
    candidates = [NodeWithScore(node=text), NodeWithScore(node=node)]
    for call in (
        lambda: embed([text, node]),
        lambda: asyncio.run(embed.acall([text, node])),
        lambda: rerank.postprocess_nodes(candidates, query_str="q"),
        lambda: asyncio.run(rerank.apostprocess_nodes(candidates, query_str="q")),
    ):
        with pytest.raises(
            ArgumentTypeError, match=r"nodes\[1\] holds an image, and .*; one that takes images"
        ) as caught:
            call()
        assert caught.value.index == 1
    assert fake.runs == []
    # Without a picture an empty text is an empty text.
    assert len(embed([TextNode(text="")])[0].embedding) == 64


def test_a_text_model_refuses_a_query_that_is_a_picture_alone(fake, paths) -> None:
    rerank = Qwen3Rerank(fake.reranker)
    candidates = [NodeWithScore(node=TextNode(text="a"))]
    for query in (image_query(paths[0]), QueryBundle("", image_path=str(paths[0]))):
        with pytest.raises(ArgumentTypeError, match=r"^query_bundle holds an image, and .* takes texts only"):
            rerank.postprocess_nodes(candidates, query)
    assert fake.runs == []
    assert len(rerank.postprocess_nodes(candidates, image_query(paths[0], "red"))) == 1


def test_a_title_is_a_text(fake, paths) -> None:
    node = ImageNode(image_path=str(paths[0]), metadata={"title": "Mars"})
    found = GemmaEmbedding(fake.gemma, title_metadata_key="title")([node])[0]
    assert found.embedding == Embedder(fake.gemma).embed_documents([""], titles=["Mars"]).tolist()[0]


def test_titles_stand_beside_pictures(fake, paths) -> None:
    embedder = Embedder(fake.vision)
    node = ImageNode(image_path=str(paths[0]), text="red", metadata={"title": "Mars"})
    with pytest.raises(ArgumentError, match="title"):
        Qwen3VLEmbedding(embedder=embedder, title_metadata_key="title")([node])
    text = GemmaEmbedding(fake.gemma, title_metadata_key="title")([node])[0]
    assert text.embedding == Embedder(fake.gemma).embed_documents(["red"], titles=["Mars"]).tolist()[0]


def test_in_an_ingestion_pipeline(model, paths) -> None:
    documents = [ImageDocument(image_path=str(path), text=f"number {place}") for place, path in enumerate(paths)]
    found = IngestionPipeline(transformations=[SentenceSplitter(), model]).run(
        documents=[*documents, Document(text="a")]
    )
    contents = [(image, f"number {place}") for place, image in enumerate(PICTURES)]
    assert [node.embedding for node in found] == model.embedder.embed_documents([*contents, "a"]).tolist()


def test_a_pipeline_never_takes_one_picture_for_another(fake, model, paths) -> None:
    for embedding in (model, Qwen3Embedding(fake.vision)):
        pipeline = IngestionPipeline(transformations=[embedding])
        for path in paths:
            node = ImageNode(image_path=str(path))
            found = pipeline.run(nodes=[node])
            assert [node.image_path for node in found] == [str(path)]
            assert found[0].embedding == model.get_image_embedding(path)
            again = asyncio.run(pipeline.arun(nodes=[node]))
            assert [node.image_path for node in again] == [str(path)]


def test_the_cache_of_embeddings_tells_pictures_apart(fake, paths) -> None:
    store = SimpleKVStore()
    model = Qwen3VLEmbedding(fake.vision, embeddings_cache=store)
    plain = Qwen3VLEmbedding(fake.vision)
    for _ in range(2):
        assert model.get_image_embedding_batch(PICTURES) == plain.get_image_embedding_batch(PICTURES)
        assert model.get_text_embedding_batch(["", "a"]) == plain.get_text_embedding_batch(["", "a"])
        assert model.get_image_query_embedding(RED) == plain.get_image_query_embedding(RED)
    assert len(store.get_all("embeddings")) == 6
    before = len(fake.texts)
    assert asyncio.run(model.aget_image_embedding(paths[0])) == plain.get_image_embedding(RED)
    assert len(fake.texts) == before + 1
    with pytest.raises(ArgumentError, match=r"texts\[1\]: the image missing.png cannot be read") as caught:
        model.get_image_embedding_batch([RED, "missing.png"])
    assert caught.value.index == 1


def test_events_hold_texts_alone(model, events, paths) -> None:
    model([ImageNode(image_path=str(paths[0]), text="red")])
    end = next(event for event in events.events if event.class_name() == "EmbeddingEndEvent")
    assert end.chunks == ["red"]
    json.dumps(end.chunks)


def test_configuration_travels(fake, paths) -> None:
    model = Qwen3VLEmbedding(fake.vision, max_pixels=200_000, special_tokens="text", instruction="Find it", dim=16)
    rerank = Qwen3VLRerank(fake.vision_reranker, max_pixels=200_000, top_n=1)
    twins = (
        Qwen3VLEmbedding.from_dict(model.to_dict()),
        Qwen3VLEmbedding.from_json(model.to_json()),
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
        model.model_copy(),
        model.model_copy(update={"dim": 16}),
    )
    for twin in twins:
        assert (type(twin), twin.max_pixels, twin.special_tokens) == (Qwen3VLEmbedding, 200_000, "text")
        assert twin.get_image_query_embedding(paths[0]) == model.get_image_query_embedding(paths[0])
    assert model.with_instruction("x").max_pixels == 200_000
    assert model.model_copy(update={"max_pixels": 100_000}).embedder.max_pixels == 100_000
    for made in (
        Qwen3VLRerank.from_dict(rerank.to_dict()),
        pickle.loads(pickle.dumps(rerank)),
        rerank.model_copy(),
        rerank.with_instruction("x"),
    ):
        assert (type(made), made.max_pixels, made.top_n) == (Qwen3VLRerank, 200_000, 1)
        assert made.reranker.max_pixels == 200_000


def candidates(paths: list[Path]) -> list[NodeWithScore]:
    return [
        NodeWithScore(node=TextNode(text="a planet"), score=0.9),
        NodeWithScore(node=ImageNode(image_path=str(paths[0])), score=0.8),
        NodeWithScore(node=ImageNode(image_path=str(paths[1]), text="a red planet"), score=0.7),
    ]


def test_texts_and_pictures_are_ranked_together(rerank, paths, fake) -> None:
    given = candidates(paths)
    for query, best in ((word(RED), 1), (f"red planet {word(GREEN)}", 2), ("a planet", 0)):
        found = rerank.postprocess_nodes(given, query_str=query)
        assert found[0].node is given[best].node
        assert found[0].retrieval_score == given[best].score
        again = asyncio.run(rerank.apostprocess_nodes(given, query_str=query))
        assert [node.score for node in again] == [node.score for node in found]
    scores = Reranker(fake.vision_reranker).score("red", ["a planet", RED, (GREEN, "a red planet")])
    found = rerank.postprocess_nodes(given, query_str="red")
    assert sorted(node.score for node in found) == sorted(scores.tolist())


def test_a_query_may_hold_a_picture(rerank, paths) -> None:
    given = candidates(paths)
    for query in (
        QueryBundle("", image_path=str(paths[0])),
        image_query(str(paths[0])),
        image_query(RED.to_png()),
    ):
        for found in (
            rerank.postprocess_nodes(given, query),
            asyncio.run(rerank.apostprocess_nodes(given, query)),
        ):
            assert found[0].node is given[1].node
    both = image_query(paths[1], "red planet")
    assert rerank.postprocess_nodes(given, both)[0].score == pytest.approx(1 / (1 + np.exp(-2)))


def test_a_broken_picture_of_a_node_or_query_is_refused(rerank, paths, broken, fake) -> None:
    given = candidates(paths)
    with pytest.raises(ArgumentError, match=r"documents\[3\]") as caught:
        rerank.postprocess_nodes([*given, NodeWithScore(node=ImageNode(image_path=str(broken)))], query_str="q")
    assert caught.value.index == 3
    for query in (QueryBundle("", image_path=str(broken)), QueryBundle("", image_path="https://example.org/a.png")):
        with pytest.raises(ArgumentError, match="query"):
            rerank.postprocess_nodes(given, query)
    assert fake.pairs == []


async def test_pictures_are_decoded_off_the_event_loop(model, rerank, monkeypatch) -> None:
    threads: set[threading.Thread] = set()
    decode = decoding.decode

    def watched(*args):
        threads.add(threading.current_thread())
        return decode(*args)

    monkeypatch.setattr(decoding, "decode", watched)
    png = RED.to_png()
    node = ImageNode(image=base64.b64encode(png).decode())
    for call in (
        lambda: model.aget_image_embedding(png),
        lambda: model.aget_image_query_embedding(png),
        lambda: model.acall([node]),
        lambda: rerank.apostprocess_nodes([NodeWithScore(node=node)], image_query(png)),
    ):
        await call()
        assert threads
        assert threading.main_thread() not in threads
        threads.clear()
