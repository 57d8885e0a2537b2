"""Counting and cutting texts on this side, with the model's own tokenizer where it is at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embrief.errors import ArgumentError, InputTooLongError, ModelMismatchError
from embrief.files.weights import COMMIT, TOKENIZER, cached_file
from embrief.runtimes.base import no_room, too_long
from embrief.system.installed import is_installed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from embrief.facts.prompts import Rendered
    from embrief.facts.specs import ModelSpec
    from embrief.runtimes.base import RunOptions

_BYTES_PER_TOKEN = 3


@dataclass(frozen=True, slots=True)
class Fitted:
    """The texts of one request as they are sent."""

    bodies: list[str]
    """Each body, cut where it was too long."""
    counts: NDArray[np.int64] | None
    """(n,) tokens of each text before that, `None` without a tokenizer."""
    truncated: NDArray[np.bool_] | None
    tokens: int
    """Of all that is sent; without a tokenizer an estimate."""


class Tokens:
    """A model's tokenizer, on this side of the wire."""

    def __init__(self, file: Path) -> None:
        """Read it.

        Raises:
            ModelMismatchError: The file is no tokenizer.
        """
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:
            # The library raises bare exceptions, whatever is wrong.
            raise ModelMismatchError(f"{file} is not a tokenizer ({error})") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    @classmethod
    def at_hand(cls, spec: ModelSpec, given: str | None) -> Tokens | None:
        """Return a model's tokenizer if it is on this machine: the one that was given, or comes with it, or is cached.

        Raises:
            ArgumentError: One was given, and is not there.
        """
        if given is not None:
            place = Path(given).expanduser()
            file = place / TOKENIZER if place.is_dir() else place
            if not file.is_file():
                raise ArgumentError(f"tokenizer={given!r} is neither a {TOKENIZER} nor a folder that holds one")
            return cls(file)
        found = spec.folder / TOKENIZER if spec.folder is not None else cached_file(spec.id, spec.revision, TOKENIZER)
        return cls(found) if found is not None and found.is_file() and is_installed("tokenizers") else None

    def encoded(self, texts: Sequence[str], *, special: bool = True) -> list[Any]:
        """Return each text's tokens, with their places."""
        found: list[Any] = self._tokenizer.encode_batch(list(texts), add_special_tokens=special)
        return found

    def cut(self, head: str, body: str, room: int) -> str | None:
        """Return the longest beginning of a body that has at most `room` tokens with its head, `None` if none has."""
        whole = self.encoded([head + body])[0]
        special = sum(whole.special_tokens_mask)
        places = [end for (_, end), mark in zip(whole.offsets, whole.special_tokens_mask, strict=True) if not mark]
        keep = room - special
        while keep > 0:
            # A token may be a part of a letter, and what is cut may be read as other tokens: count again.
            part = body[: max(places[keep - 1] - len(head), 0)]
            over = len(self.encoded([head + part])[0]) - room
            if over <= 0:
                return part or None
            keep -= over
        return None


def fit(inputs: Sequence[Rendered], options: RunOptions, tokens: Tokens | None, spec: ModelSpec) -> Fitted:
    """Cut texts that are longer than the limit, or refuse them.

    Without a tokenizer nothing can be cut here, and the server is asked to refuse what it cannot take whole. A limit
    below the model's own can then be kept only for texts that are surely within it.

    Raises:
        InputTooLongError: A text is too long and may not be cut, or its prompt leaves no room.
        ArgumentError: The limit cannot be kept.
    """
    import numpy as np

    bodies = [item.words for item in inputs]
    if tokens is None:
        sizes = [len(item.text.encode("utf-8", "surrogatepass")) for item in inputs]
        if options.max_tokens < spec.max_tokens:
            for index, size in enumerate(sizes):
                # A token has at least a byte, and a few are put around a text.
                if size + 8 > options.max_tokens:
                    raise _uncountable(index, spec, options)
        return Fitted(bodies, None, None, sum(size // _BYTES_PER_TOKEN + 1 for size in sizes))
    found = tokens.encoded([item.head + item.words for item in inputs])
    tails = {item.tail: 0 for item in inputs}
    for tail in tails:
        tails[tail] = len(tokens.encoded([tail], special=False)[0]) if tail else 0
    counts = np.array([len(each) + tails[item.tail] for each, item in zip(found, inputs, strict=True)], np.int64)
    truncated = counts > options.max_tokens
    for index in np.flatnonzero(truncated).tolist():
        if options.refuse_long:
            raise too_long(index, int(counts[index]), options)
        item = inputs[index]
        part = tokens.cut(item.head, item.words, options.max_tokens - tails[item.tail])
        if part is None:
            raise no_room(index, len(tokens.encoded([item.head])[0]) + tails[item.tail], options)
        bodies[index] = part
    return Fitted(bodies, counts, truncated, int(np.minimum(counts, options.max_tokens).sum()))


def _uncountable(index: int, spec: ModelSpec, options: RunOptions) -> ArgumentError:
    return ArgumentError(
        f"the text at index {index} may have more than max_tokens={options.max_tokens} tokens, and without the model's "
        f"tokenizer that cannot be told: {remedy(spec)}; or leave max_tokens out",
        index=index,
    )


def remedy(spec: ModelSpec) -> str:
    """Say how the tokenizer comes to be at hand."""
    if COMMIT.fullmatch(spec.revision):
        return f"`embrief pull {spec.id} --tokenizer` fetches it once, or tokenizer= names a file"
    return "tokenizer= names a tokenizer.json, if there is one"


def over_the_servers_limit(
    index: int, tokens: int | None, limit: int | None, spec: ModelSpec, *, counted: bool, where: str
) -> InputTooLongError:
    """Return the error for a text that the server does not take whole.

    Args:
        index: Its place.
        tokens: How many it has, if that is known.
        limit: How many the server takes, if that is known.
        spec: The model.
        counted: Whether the tokenizer is at hand.
        where: The server's address.
    """
    length = f"has {tokens} tokens" if tokens else "is too long"
    takes = f"{where} takes {limit}" if limit else f"{where} takes fewer"
    cut = f"pass max_tokens={limit or '<its limit>'} to cut texts there"
    how = cut if counted else f"to cut it here, the model's tokenizer is needed: {remedy(spec)}, and {cut}"
    return InputTooLongError(
        f"the text at index {index} {length} and {takes}; split it, raise the server's limit, or {how}",
        index=index,
        tokens=tokens or 0,
        limit=limit or 0,
    )
