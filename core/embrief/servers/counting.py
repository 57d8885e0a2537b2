"""Counting and cutting texts on this side, with the model's own tokenizer where it is at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embrief.errors import ArgumentError, InputTooLongError, MissingDependencyError, ModelMismatchError
from embrief.facts.specs import EmbeddingSpec, RerankerSpec
from embrief.files.weights import COMMIT, TOKENIZER, cached_file
from embrief.runtimes.base import no_room, too_long
from embrief.system.installed import is_installed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from embrief.facts.prompts import Rendered
    from embrief.facts.specs import ModelSpec
    from embrief.runtimes.base import RunOptions

_BYTES_PER_TOKEN = 2


@dataclass(frozen=True, slots=True)
class Fitted:
    """The texts of one request as they are sent."""

    bodies: list[str]
    """Each body, cut where it was too long."""
    counts: NDArray[np.int64] | None
    """(n,) tokens of each text before that, `None` without a tokenizer."""
    truncated: NDArray[np.bool_] | None
    tokens: int
    """Of all that is sent, after the cut; without a tokenizer an estimate: one for two bytes."""


class Tokens:
    """A model's tokenizer, on this side of the wire: the same counts as where the model runs here."""

    def __init__(self, file: Path, spec: ModelSpec) -> None:
        """Read it.

        Raises:
            ModelMismatchError: The file is no tokenizer.
            MissingDependencyError: What reads it is not installed.
        """
        if not is_installed("tokenizers"):
            raise MissingDependencyError(
                f"the package tokenizers, which reads {file}, is not installed: pip install tokenizers"
            )
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:
            # The library raises bare exceptions, whatever is wrong.
            raise ModelMismatchError(f"{file} is not a tokenizer ({error})") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._pairs = isinstance(spec, RerankerSpec) and spec.scoring == "classifier"
        # A reranker's template holds all special tokens that it is trained with.
        self._special = self._pairs or isinstance(spec, EmbeddingSpec)
        self.missing = int(self._leaves_out_the_final_token(spec))
        """Tokens that the model is trained with and this file leaves out of every text: one, or none."""

    def _leaves_out_the_final_token(self, spec: ModelSpec) -> bool:
        if not isinstance(spec, EmbeddingSpec) or not spec.final_token_left_out or spec.final_token is None:
            return False
        ids: list[int] = self._tokenizer.encode("a").ids
        return ids[-1:] != [self._tokenizer.token_to_id(spec.final_token)]

    @classmethod
    def at_hand(cls, spec: ModelSpec, given: str | None) -> Tokens | None:
        """Return a model's tokenizer if it is on this machine: given, with its record, or in the hub's cache.

        Raises:
            ArgumentError: One was given, and is not there.
            ModelMismatchError: It is no tokenizer.
            MissingDependencyError: One was given, and what reads it is not installed.
        """
        if given is not None:
            place = Path(given).expanduser()
            file = place / TOKENIZER if place.is_dir() else place
            if not file.is_file():
                raise ArgumentError(f"tokenizer={given!r} is neither a {TOKENIZER} nor a folder that holds one")
            return cls(file, spec)
        if spec.folder is not None:
            found: Path | None = spec.folder / TOKENIZER
        else:
            found = cached_file(spec.id, spec.revision, TOKENIZER)
        return cls(found, spec) if found is not None and is_installed("tokenizers") else None

    def number(self, token: str) -> int | None:
        """Return the id of a token."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def encoded(self, heads: Sequence[str], bodies: Sequence[str]) -> list[Any]:
        """Return the tokens of bodies with their heads, with their places."""
        pairs = list(zip(heads, bodies, strict=True))
        texts: list[Any] = pairs if self._pairs else [head + body for head, body in pairs]
        found: list[Any] = self._tokenizer.encode_batch(texts, add_special_tokens=self._special)
        return found

    def length(self, text: str) -> int:
        """Return how many tokens a text has by itself, without special ones around it."""
        return len(self._tokenizer.encode(text, add_special_tokens=False))

    def cut(self, head: str, body: str, room: int) -> tuple[str, int] | None:
        """Return the longest beginning of a body that has at most `room` tokens with its head, and how many it has.

        `None`: none has.
        """
        whole = self.encoded([head], [body])[0]
        if self._pairs:
            # The places in each of the two begin at 0.
            ends = [end for (_, end), part in zip(whole.offsets, whole.sequence_ids, strict=True) if part == 1]
        else:
            marks = zip(whole.offsets, whole.special_tokens_mask, strict=True)
            ends = [end - len(head) for (_, end), mark in marks if not mark]
        keep = len(ends) - (len(whole) - room)
        while keep > 0:
            # A token may be a part of a letter, and what is cut may be read as other tokens: count again.
            part = body[: max(ends[keep - 1], 0)]
            size = len(self.encoded([head], [part])[0])
            if size <= room:
                return (part, size) if part else None
            keep -= size - room
        return None


def fit(
    inputs: Sequence[Rendered], options: RunOptions, tokens: Tokens | None, spec: ModelSpec, *, server_keeps: bool
) -> Fitted:
    """Cut texts that are longer than the limit, or refuse them.

    Without a tokenizer nothing can be cut here, and the server is asked to refuse what it cannot take whole. A limit
    below the model's own can then be kept only for texts that are surely within it, or by a server that is told of it.

    Args:
        inputs: The texts.
        options: The limit, and what to do with a longer text.
        tokens: The tokenizer, if it is at hand.
        spec: The model.
        server_keeps: Whether the server is told the limit, and refuses what is longer.

    Raises:
        InputTooLongError: A text is too long and may not be cut, or its prompt leaves no room.
        ArgumentError: The limit cannot be kept.
    """
    import numpy as np

    bodies = [item.words for item in inputs]
    if tokens is None:
        sizes = [len(item.text.encode("utf-8", "surrogatepass")) for item in inputs]
        if options.max_tokens < spec.max_tokens and not server_keeps:
            for index, size in enumerate(sizes):
                # A token has at least a byte, and a few are put around a text.
                if size + 8 > options.max_tokens:
                    raise _uncountable(index, spec, options)
        return Fitted(bodies, None, None, sum(size // _BYTES_PER_TOKEN + 1 for size in sizes))
    counts, behind = lengths(inputs, tokens)
    truncated = counts > options.max_tokens
    sizes = counts.tolist()
    for index in np.flatnonzero(truncated).tolist():
        item = inputs[index]
        if options.refuse_long:
            what = "the query with the document" if isinstance(spec, RerankerSpec) else "the text"
            raise too_long(index, int(counts[index]), options, what)
        part = tokens.cut(item.head, item.words, options.max_tokens - behind[item.tail])
        if part is None:
            raise _full(item, index, tokens, behind[item.tail], spec, options)
        bodies[index], sizes[index] = part[0], part[1] + behind[item.tail]
    return Fitted(bodies, counts, truncated, sum(sizes))


def lengths(inputs: Sequence[Rendered], tokens: Tokens) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Return (n,) tokens of each input before any cut, and how many there are behind the body, by tail."""
    import numpy as np

    found = tokens.encoded([item.head for item in inputs], [item.words for item in inputs])
    behind = {tail: tokens.length(tail) + tokens.missing for tail in {item.tail for item in inputs}}
    counts = [len(each) + behind[item.tail] for each, item in zip(found, inputs, strict=True)]
    return np.array(counts, np.int64), behind


def _full(
    item: Rendered, index: int, tokens: Tokens, behind: int, spec: ModelSpec, options: RunOptions
) -> InputTooLongError:
    """Return the error for a text of which the limit leaves nothing."""
    size = len(tokens.encoded([item.head], [""])[0]) + behind
    if isinstance(spec, EmbeddingSpec):
        return no_room(index, size, options)
    from embrief.runtimes.rerank_common import query_too_long

    return query_too_long(index, size, options)


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
    how = cut if counted else f"have it cut here, which needs the model's tokenizer: {remedy(spec)}; then {cut}"
    return InputTooLongError(
        f"the text at index {index} {length} and {takes}; split it, raise the server's limit, or {how}",
        index=index,
        tokens=tokens or 0,
        limit=limit or 0,
    )
