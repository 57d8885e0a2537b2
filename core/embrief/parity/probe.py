"""The texts that two ways to run a model are compared on. Short ones alone would miss most of what goes wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from embrief.facts.prompts import RenderedTexts, Source
from embrief.facts.specs import NO_PROMPT

if TYPE_CHECKING:
    from embrief.facades.embedder import Embedder
    from embrief.facts.prompts import Rendered
    from embrief.facts.specs import Role
    from embrief.runtimes.base import RunOptions

VERSION = 1
"""Of the texts: vectors that were kept for others are of no use."""

_SENTENCE = "Mars, known for its reddish appearance, is often referred to as the Red Planet. "
_ENDS = ("It has two small moons.", "Nobody has ever been there.")


@dataclass(frozen=True, slots=True)
class Probe:
    """One text, and what it is there for."""

    name: str
    text: str
    role: Role = "document"


def _long(sentences: int, end: str) -> str:
    return _SENTENCE * sentences + end


SHORT = (
    Probe("one letter", "a"),
    Probe("three words", "the red planet"),
    Probe("English", _SENTENCE.strip()),
    Probe("Chinese", "火星因其红色外观而常被称为红色星球。"),
    Probe("Arabic", "يُعرف المريخ بالكوكب الأحمر."),
    Probe("Hindi", "मंगल को लाल ग्रह भी कहा जाता है।"),
    Probe("code", "def add(a, b):\n    return a + b  # 加法 🙂"),
)
QUERIES = (
    Probe("query", "Which planet is known as the Red Planet?", "query"),
    Probe("query in German", "Welcher Planet heißt der rote Planet?", "query"),
)
EDGES = Probe("white space at the edges", "  \n the red planet \t\n ")
EMPTY = Probe("empty", "")
# 17 or 18 tokens a sentence with the tokenizers of Qwen3 and Gemma, 20 with those of BERT's kind.
OVER_257 = Probe("over 257 tokens", _long(16, _ENDS[0]))
OVER_512 = Probe("over 512 tokens", _long(32, _ENDS[0]))
OTHER_END = Probe("over 512 tokens, another end", _long(32, _ENDS[1]))
LONG = (OVER_257, OVER_512, OTHER_END)


def ladder(limit: int) -> list[tuple[int, str, str]]:
    """Return pairs of texts that differ in their ends alone, of about 1,000 tokens and twice as many each time.

    Args:
        limit: Tokens per text; none of them has more.

    Returns:
        About how many tokens they have, and the two.
    """
    sizes = [size for size in (1000, 2000, 4000, 8000, 16000, 32000) if size <= limit]
    return [(size, _long(size // 20, _ENDS[0]), _long(size // 20, _ENDS[1])) for size in sizes]


def special(final_token: str | None) -> Probe:
    """Return a text with a special token in it."""
    return Probe("a special token inside", f"the red{final_token or '</s>'}planet")


def probes(final_token: str | None, limit: int) -> tuple[Probe, ...]:
    """Return all texts for a model.

    Args:
        final_token: The token that ends its texts.
        limit: Tokens per text; of the long texts those that it holds.
    """
    long = LONG if limit >= 1200 else LONG[:1] if limit >= 600 else ()
    return (*SHORT, *QUERIES, EDGES, EMPTY, special(final_token), *long)


def options_of(embedder: Embedder, dim: int | None = None) -> RunOptions:
    """Return how an embedder's model reads texts for it; what is too long is cut, whatever the embedder does."""
    return replace(embedder._options(embedder.spec, dim), refuse_long=False)


def rendered(embedder: Embedder, probe: Probe) -> Rendered:
    """Return a text with the prompt of its role."""
    from embrief.facts.prompts import PromptChoice

    return embedder._render(embedder.spec, [probe.text], probe.role, PromptChoice(), None)[0]


def bare(texts: Sequence[str]) -> Sequence[Rendered]:
    """Return texts without a prompt."""
    return RenderedTexts(list(texts), NO_PROMPT, Source())
