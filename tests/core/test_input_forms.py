"""The forms of one input: what is taken, what it is the same as, and what is refused with its index."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embrief import ArgumentError, ArgumentTypeError, Embedder, Image, Reranker
from embrief.testing import FakeRuntime
from embrief.wrapping import Input, PicturedText


@pytest.fixture
def fake() -> Iterator[FakeRuntime]:
    with FakeRuntime() as runtime:
        yield runtime


def test_a_video_is_refused_with_the_reason(fake: FakeRuntime) -> None:
    with pytest.raises(ArgumentTypeError, match=r"texts\[1\] holds a video, and no model takes videos here") as caught:
        Embedder(fake.vision).embed_documents(["a", {"video": "film.mp4"}])
    assert caught.value.index == 1
    assert fake.runs == []


NOTHING = "holds neither a text nor a picture"


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        ({}, NOTHING),
        ({"image": None}, NOTHING),
        ({"text": None, "image": []}, NOTHING),
        ([], NOTHING),
        ({"image": "cat.png"}, r"for a file pass Image\(Path"),
        ({"text": "a cat", "image": ["cat.png"]}, r"for a file pass Image\(Path"),
        ({"text": Image(np.zeros((4, 4, 3), np.uint8))}, "under 'image'"),
        ({"image": b"..."}, r"wrap a picture: Image\("),
        (b"...", r"wrap a picture: Image\("),
        (Path("cat.png"), r"wrap a picture: Image\("),
        (np.zeros((4, 4, 3), np.uint8), r"wrap a picture: Image\("),
        ({"image": b"...", "title": "t"}, "other keys"),
    ],
)
def test_what_is_no_input_is_refused_with_the_remedy(fake: FakeRuntime, value: object, remedy: str) -> None:
    embedder, reranker = Embedder(fake.vision), Reranker(fake.vision_reranker)
    for call in (embedder.embed_documents, lambda items: reranker.score("q", items)):
        with pytest.raises(ArgumentTypeError, match=rf"\[1\] is .*{remedy}") as caught:
            call(["a", value])
        assert caught.value.index == 1
    with pytest.raises(ArgumentTypeError, match=remedy):
        embedder.embed_query(value)  # type: ignore[arg-type] # the mistake
    assert fake.runs == []


RED = Image(np.full((32, 32, 3), (255, 0, 0), np.uint8))
FORMS: list[tuple[Any, Input]] = [
    (["ab"], "ab"),
    (("a", "b"), "ab"),
    ({"text": "ab"}, "ab"),
    ({"text": ["a", "b"], "image": None}, "ab"),
    ({"text": "ab", "image": []}, "ab"),
    ({"text": None, "image": RED}, RED),
    ({"image": [RED, RED]}, [RED, RED]),
    ({"text": "ab", "image": RED}, [RED, "ab"]),
    (["a", RED, "b"], [RED, "a", "b"]),
    (PicturedText("ab", [RED]), [RED, "ab"]),
    (PicturedText(" ", [RED]), RED),
    ({"text": PicturedText("ab", [RED])}, [RED, "ab"]),
    (PicturedText("ab"), "ab"),
]
"""Each with an input that has another form and is the same."""


@pytest.mark.parametrize(("given", "same"), FORMS, ids=repr)
def test_a_document_is_a_part_parts_or_a_mapping_wherever_one_goes(fake: FakeRuntime, given: Any, same: Input) -> None:
    embedder, reranker = Embedder(fake.vision), Reranker(fake.vision_reranker)
    found, expected = embedder.embed_documents([given, same])
    assert np.array_equal(found, expected)
    assert np.array_equal(embedder.embed_query(given), embedder.embed_query(same))
    assert np.array_equal(asyncio.run(embedder.aembed_query(given)), embedder.embed_query(same))
    assert np.array_equal(next(embedder.iter_documents([given])), expected)
    assert embedder.render(given, role="document") == embedder.render(same, role="document")
    scores = reranker.score_pairs([(given, "x"), (same, "x"), ("x", given), ("x", same)])
    assert (scores[0], scores[2]) == (scores[1], scores[3])
    assert np.array_equal(reranker.score(given, [given]), reranker.score(same, [same]))
    assert reranker.render(given, given) == reranker.render(same, same)


@pytest.mark.parametrize("given", [{"text": "ab"}, {"text": ["a", "b"], "image": None}, {"text": "ab", "image": []}])
def test_a_mapping_without_pictures_is_its_text_for_models_of_texts(fake: FakeRuntime, given: Any) -> None:
    embedder, reranker = Embedder(fake.qwen3), Reranker(fake.reranker)
    found, expected = embedder.embed_documents([given, "ab"])
    assert np.array_equal(found, expected)
    assert np.array_equal(embedder.embed_query(given), embedder.embed_query("ab"))
    scores = reranker.score_pairs([(given, given), ("ab", "ab")])
    assert scores[0] == scores[1] == reranker.score(given, [given])[0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a", "b"], "is list; it must be a string; give each of its texts a place of its own, or join them"),
        (("a",), "is tuple; it must be a string; give each of its texts a place of its own"),
        ({"image": None}, "or a mapping with 'text'; this one holds neither"),
        ({"text": "a", "id": 1}, "this one has other keys"),
        (PicturedText("a", [RED]), "holds an image, and .* takes texts only; one that takes images is "),
        ({"text": PicturedText("a", [RED])}, "holds an image, and .* takes texts only"),
    ],
    ids=repr,
)
def test_models_of_texts_refuse_other_forms_by_index(fake: FakeRuntime, given: Any, message: str) -> None:
    embedder, reranker = Embedder(fake.qwen3), Reranker(fake.reranker)
    calls: list[Callable[[], object]] = [
        lambda: embedder.embed_documents(["x", given]),
        lambda: list(embedder.iter_documents(["x", given])),
        lambda: reranker.score("x", ["x", given]),
    ]
    if not isinstance(given, (list, tuple)):  # of these the pair is at fault
        calls.append(lambda: reranker.score_pairs([("x", "x"), ("x", given)]))
    for call in calls:
        with pytest.raises(ArgumentTypeError, match=rf"\[1\] .*{message}") as caught:
            call()
        assert caught.value.index == 1
    for single in (lambda: embedder.embed_query(given), lambda: asyncio.run(embedder.aembed_query(given))):
        with pytest.raises(ArgumentTypeError, match=r"^text "):
            single()
    assert fake.runs == []


def test_an_error_about_a_single_query_names_no_place_in_a_list(fake: FakeRuntime) -> None:
    embedder, broken = Embedder(fake.vision), Image(b"no picture")
    for call in (lambda: embedder.embed_query(broken), lambda: asyncio.run(embedder.aembed_query(["a", broken]))):
        with pytest.raises(ArgumentError, match=r"^text: a picture is a file in") as caught:
            call()
        assert caught.value.index is None
    assert fake.runs == []
