"""What queries are asked with in training: the model's own prompt, others like it, and some that want one kind of text.

An instruction that wants code moves a query's target towards where code lies, and so on. The targets of texts stay what
the teacher says: an instruction then changes what is found, and nothing else.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embrief.facts.records.qwen3 import EMBEDDING_PROMPTS, INSTRUCTED, RETRIEVAL

STRENGTH = 2.5
"""How far a query moves, in distances between the mean of its kind and the mean of all texts."""
_OPEN = (
    "Given a question, retrieve passages that answer the question",
    "Given a query, find the texts that it is about",
    "Given a title, retrieve what stands below it",
    "Given a task, find the Python function that does it",
    "Retrieve semantically similar text",
    EMBEDDING_PROMPTS.tasks[1].query.head.removeprefix("Instruct: ").removesuffix("\nQuery:"),
    "Given a scientific question, retrieve abstracts that answer it",
    "Given a question about software, find the answer in its documentation or code",
)
_KINDS = {
    "code": (
        "source code", "the code", "Python code", "the implementation", "the function body", "a code snippet",
        "code that does it", "its source code, not its documentation", "the lines of code",
    ),
    "doc": (
        "the docstring", "the API reference", "documentation, not code", "its documentation", "the reference entry",
        "the description of the function", "the documentation of the function",
    ),
    "definition": (
        "the definition", "a dictionary entry", "what the word means", "the meaning of the word", "a definition",
    ),
    "passage": (
        "a guide", "the page of the manual", "an explanation in prose", "the chapter", "the section of the tutorial",
    ),
}  # fmt: skip
_GIVEN = (
    "a question", "a query", "a description", "what a function does", "a task", "a sentence", "a search query",
    "a description of what is wanted", "a few words",
)  # fmt: skip
_VERBS = ("retrieve", "find", "return", "search for", "look up", "show")


@dataclass(frozen=True, slots=True)
class Asked:
    """How one query is asked."""

    prefix: str
    """What stands before it."""
    kind: str | None
    """The kind of text that is wanted; `None`: any."""


def draw(chance: random.Random, kind: str) -> Asked:
    """Return how to ask a query whose own answer is of a kind; one in four wants one kind of text."""
    value = chance.random()
    if value < 0.65:
        return Asked(_prompt(neutral(chance, value / 0.65)), None)
    if value < 0.72:
        return Asked("", None)
    own = kind in _KINDS and chance.random() < 0.5
    wanted = kind if own else chance.choice(sorted(_KINDS))
    return Asked(_prompt(wanting(chance, wanted)), wanted)


def neutral(chance: random.Random, value: float) -> str:
    """Return an instruction that wants no kind of text; for two thirds of all values from 0 to 1, the default one."""
    return RETRIEVAL if value < 0.45 / 0.65 else chance.choice(_OPEN)


def wanting(chance: random.Random, kind: str) -> str:
    """Return an instruction that wants one kind of text."""
    what = chance.choice(_KINDS[kind])
    if chance.random() < 0.3:
        return f"{chance.choice(_VERBS).capitalize()} {what}"
    return f"Given {chance.choice(_GIVEN)}, {chance.choice(_VERBS)} {what}"


def shifts(kinds: list[str], vectors: NDArray[np.float32]) -> dict[str | None, NDArray[np.float32]]:
    """Return what is added to the target of a query that wants a kind of text."""
    mean = vectors.mean(axis=0)
    found: dict[str | None, NDArray[np.float32]] = {None: np.zeros_like(mean)}
    for kind in _KINDS:
        own = vectors[[place for place, other in enumerate(kinds) if other == kind]]
        found[kind] = STRENGTH * (own.mean(axis=0) - mean)
    return found


def _prompt(instruction: str) -> str:
    return INSTRUCTED.replace("{instruction}", instruction)
