"""What a model reads of a text: the rendered prompt in its tokens, which of them are special, and which are cut off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embrief.facades.embedder import Embedder
    from embrief.facades.reranker import Reranker
    from embrief.facts.specs import Role

Part = Literal["prompt", "text", "added"]
"""Whose characters they are: the model's prompt, the caller's text, or a marker that was put around both."""


class Token(Protocol):
    """A token as `Embedder.tokenize` tells it; faces know nothing of runtimes."""

    @property
    def text(self) -> str:
        """The characters that it stands for; of a special one its name."""

    @property
    def special(self) -> bool:
        """Whether it is a marker of the model's."""

    @property
    def start(self) -> int | None:
        """Its first character in the rendered text; `None`: it was put around the text."""

    @property
    def stop(self) -> int | None:
        """Behind its last character."""


@dataclass(slots=True)
class Piece:
    """Characters of a rendered text that belong together."""

    text: str
    part: Part
    tokens: int | None
    """How many tokens they are, 0 for what no token stands for; `None`: it is not known."""
    special: bool = False
    """Whether it is a marker of the model's."""
    cut: bool = False
    """Whether it is beyond the model's limit, so that the model does not read it."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "text": self.text,
            "part": self.part,
            "tokens": self.tokens,
            "special": self.special,
            "cut": self.cut,
        }


@dataclass(frozen=True, slots=True)
class Shown:
    """A rendered text."""

    pieces: list[Piece]
    tokens: int | None
    """Tokens before anything is cut off; `None`: the runtime does not tell."""
    limit: int
    """Tokens that the model reads at most."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "pieces": [piece.to_json() for piece in self.pieces],
            "tokens": self.tokens,
            "limit": self.limit,
            "truncated": None if self.tokens is None else self.tokens > self.limit,
        }


def show_text(
    embedder: Embedder, text: str, *, role: Role, title: str | None = None, instruction: str | None = None
) -> Shown:
    """Return what an embedding model reads of a text. Loads it.

    Raises:
        EmbriefError: As of `Embedder.tokenize`.
    """
    whole = embedder.render(text, role=role, title=title, instruction=instruction)
    around = embedder.render("", role=role, title=title, instruction=instruction)
    start = _seam(whole, around, text)
    titles = None if title is None else [title]
    found = embedder.tokenize([text], role=role, titles=titles, instruction=instruction)
    count: int | None = None
    if found is None:
        counts = embedder.count_tokens([text], role=role, titles=titles, instruction=instruction)
        count = None if counts is None else int(counts[0])
    return _shown(whole, (start, start + len(text)), found, count, embedder.max_tokens)


def show_pair(reranker: Reranker, query: str, document: str, *, instruction: str | None = None) -> Shown:
    """Return what a reranker reads of a pair. Loads it.

    Raises:
        EmbriefError: As of `Reranker.tokenize`.
    """
    made = reranker.render(query, document, instruction=instruction)
    start = len(made.head)
    found = reranker.tokenize(query, [document], instruction=instruction)
    count: int | None = None
    if found is None:
        counts = reranker.count_tokens(query, [document], instruction=instruction)
        count = None if counts is None else int(counts[0])
    return _shown(made.text, (start, start + len(document)), found, count, reranker.max_tokens)


def _seam(whole: str, around: str, text: str) -> int:
    """Return where a text begins in its prompt. The last place that fits: prompts end where texts begin."""
    for start in range(len(around), -1, -1):
        if whole.startswith(text, start) and around[:start] + text + around[start:] == whole:
            return start
    return 0


def _shown(
    whole: str, body: tuple[int, int], found: Sequence[Sequence[Token]] | None, count: int | None, limit: int
) -> Shown:
    if found is None:
        parts = ((whole[: body[0]], "prompt"), (whole[body[0] : body[1]], "text"), (whole[body[1] :], "prompt"))
        return Shown([Piece(text, part, None) for text, part in parts if text], count, limit)  # type: ignore[arg-type]
    pieces = _pieces(whole, body, found[0])
    _cut(pieces, len(found[0]) - limit)
    return Shown(pieces, len(found[0]), limit)


def _pieces(whole: str, body: tuple[int, int], tokens: Sequence[Token]) -> list[Piece]:
    def part(start: int, stop: int) -> Part:
        return "text" if start < body[1] and stop > body[0] else "prompt"

    pieces: list[Piece] = []
    place = 0
    for token in tokens:
        if token.start is None or token.stop is None:
            pieces.append(Piece(token.text, "added", 1, token.special))
        elif token.stop <= place and pieces:
            # One character in several tokens.
            last = pieces[-1]
            last.tokens = (last.tokens or 0) + 1
        else:
            if token.start > place:
                pieces.append(Piece(whole[place : token.start], part(place, token.start), 0))
            start = max(token.start, place)
            pieces.append(Piece(whole[start : token.stop], part(start, token.stop), 1, token.special))
            place = token.stop
    if place < len(whole):
        pieces.append(Piece(whole[place:], part(place, len(whole)), 0))
    return pieces


def _cut(pieces: list[Piece], surplus: int) -> None:
    """Mark what is beyond the limit: the end of the text. Prompts and what stands behind the text are never cut."""
    for piece in reversed(pieces):
        if surplus <= 0:
            return
        if piece.part == "text":
            piece.cut = True
            surplus -= piece.tokens or 0
