"""Options of models that take pictures: instructions that they always have, and the area in which a picture is seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from embrief import ArgumentError, ArgumentTypeError, Embedder, Image, Reranker
from embrief.facts.records.qwen3_vl import IMAGES
from embrief.testing import FakeRuntime

QWEN = "Qwen/Qwen3-VL-Embedding-2B"


@pytest.fixture
def fake() -> Iterator[FakeRuntime]:
    with FakeRuntime() as found:
        yield found


@pytest.mark.parametrize("nothing", ["", "  ", "\n"])
def test_no_instruction_at_all_cannot_be_had(fake: FakeRuntime, nothing: str) -> None:
    """The prompt has a system line, whatever is asked."""
    said = "always has an instruction in its prompt"
    for name in (QWEN, "Qwen/Qwen3-VL-Embedding-8B", fake.vision):
        with pytest.raises(ArgumentError, match=said):
            Embedder(name, instruction=nothing)
        with pytest.raises(ArgumentError, match=said):
            Embedder(name).with_instruction(nothing)
    embedder = Embedder(fake.vision)
    for call in (
        lambda: embedder.embed_query("a", instruction=nothing),
        lambda: embedder.embed_queries(["a"], instruction=nothing),
        lambda: embedder.encode(["a"], role="query", instruction=nothing),
        lambda: embedder.render("a", role="query", instruction=nothing),
        lambda: embedder.tokenize(["a"], role="query", instruction=nothing),
    ):
        with pytest.raises(ArgumentError, match=said):
            call()
    assert fake.runs == []


@pytest.mark.parametrize(
    ("instruction", "seen"),
    [
        (" Find it? ", "Find it?"),
        ("Find it", "Find it."),
        ("Find it.", "Find it."),
        ("找到它。", "找到它。"),
        ("找到它", "找到它."),
        ("a)", "a)"),
        ("a_", "a_"),
        ("a»\n", "a»"),
        ("a$", "a$."),
        ("a+", "a+."),
        ("a\u0301", "a\u0301."),
        ("7", "7."),
        (".", "."),
    ],
)
def test_an_instruction_ends_in_punctuation_of_any_script(instruction: str, seen: str) -> None:
    """Whatever Unicode counts as punctuation (category P), and no symbol, as the authors' code has it."""
    wanted = f"<|im_start|>system\n{seen}<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"
    assert Embedder(QWEN, instruction=instruction).render("a", role="query") == wanted
    assert Embedder(QWEN).render("a", role="query", instruction=instruction) == wanted


def kinds(fake: FakeRuntime) -> list[tuple[Any, str]]:
    return [(Embedder, fake.vision), (Reranker, fake.vision_reranker), (Embedder, QWEN)]


@pytest.mark.parametrize(
    ("area", "error", "said"),
    [
        (0, ArgumentError, "max_pixels=0 must be at least 1"),
        (-1, ArgumentError, "max_pixels=-1 must be at least 1"),
        (IMAGES.min_pixels - 1, ArgumentError, f"max_pixels=4095 is less than the least area of .*, {4 * 32 * 32}"),
        (True, ArgumentTypeError, "max_pixels is a whole number or None, not True"),
        (1.5, ArgumentTypeError, "max_pixels is a whole number or None, not 1.5"),
        (65536.0, ArgumentTypeError, "max_pixels is a whole number or None, not 65536.0"),
        ("1", ArgumentTypeError, "max_pixels is a whole number or None, not '1'"),
    ],
)
def test_areas_that_are_none_are_refused(fake: FakeRuntime, area: Any, error: type[Exception], said: str) -> None:
    for kind, name in kinds(fake):
        with pytest.raises(error, match=said):
            kind(name, max_pixels=area)
        with pytest.raises(error, match=said):
            kind(name).with_settings(max_pixels=area)


def test_the_least_area_is_taken(fake: FakeRuntime) -> None:
    for kind, name in kinds(fake):
        assert kind(name, max_pixels=IMAGES.min_pixels).max_pixels == IMAGES.min_pixels


def test_a_text_model_has_no_area(fake: FakeRuntime) -> None:
    with pytest.raises(ArgumentError, match=r"takes texts only, so max_pixels=65536 would do nothing; leave it out"):
        Embedder(fake.qwen3, max_pixels=65536)
    assert Embedder(fake.qwen3).max_pixels is None


def test_an_instruction_stands_before_pictures_too(fake: FakeRuntime) -> None:
    import numpy as np

    picture = Image(np.zeros((64, 64, 3), np.uint8))
    shown = Embedder(fake.vision).render([picture, "a"], role="query", instruction=" Find it? ")
    assert f"system\nFind it?<|im_end|>\n<|im_start|>user\n{IMAGES.mark}a<|im_end|>" in shown
