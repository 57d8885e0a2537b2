"""Under which key the answer to a text is kept: all that moves its whole vector, and nothing to read the text from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embrief.facts.prompts import Rendered
    from embrief.runtimes.base import RunOptions

_FORMAT = "embrief embeddings 1"
"""To be changed where equal inputs get other vectors: entries of before are then never found again."""


def digest(*parts: str | bytes) -> bytes:
    """Return SHA-256 over parts, each with its length in front."""
    found = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        found.update(len(data).to_bytes(8, "little") + data)
    return found.digest()


class Keys:
    """The keys of one model, as one runtime runs it."""

    def __init__(self, model: Sequence[str], *, native_dims: bool, server_renders: bool) -> None:
        """Take what decides its vectors.

        Args:
            model: What names model, runtime and number format, in an order that never changes.
            native_dims: Whether the runtime makes shorter vectors itself, so that each width is another answer.
            server_renders: Whether a server puts its own prompt around texts, by what `Rendered.source` says.
        """
        self._model = digest(_FORMAT, *model)
        self.native_dims, self.server_renders = native_dims, server_renders

    def of(self, inputs: Sequence[Rendered], options: RunOptions) -> list[bytes]:
        """Return the key of each input: 32 bytes."""
        cut = "refused" if options.refuse_long else "cut"
        dim = str(options.dim) if self.native_dims else ""
        # Left out where a text model reads texts as it always has: keys that exist stay.
        more = [] if options.max_pixels is None else [f"pixels {options.max_pixels}"]
        more += [] if options.special_tokens == "parsed" else ["plain text"]
        base = digest(self._model, str(options.max_tokens), cut, dim, *more)
        return [hashlib.sha256(base + item.key + self._said(item)).digest() for item in inputs]

    def _said(self, item: Rendered) -> bytes:
        if not self.server_renders:
            return b""
        source = item.source
        query = source.query if source.query is None or isinstance(source.query, str) else item.shown
        said = [value for part in (query, source.instruction, source.title) for value in _given(part)]
        # Left out where it is the model's first: keys that exist stay.
        task = [] if source.task is None else ["task", source.task]
        return digest(source.role, *said, *task)


def _given(part: str | None) -> tuple[str, str]:
    """Return a part so that none and an empty one differ."""
    return ("", "") if part is None else ("given", part)
