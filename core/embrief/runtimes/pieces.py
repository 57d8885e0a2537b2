"""Inputs to token ids where what callers wrote gives no special tokens, and pictures stand among the texts.

The names of special tokens count in the template's own parts only. Between them, template and text are tokenised in one
piece, as in the authors' code: a byte-pair merge may cross the seam.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from embrief.errors import ArgumentError, InputTooLongError, ModelMismatchError
from embrief.images.image import Image
from embrief.runtimes.base import no_room, too_long
from embrief.runtimes.rerank_common import query_too_long
from embrief.runtimes.torch_common import IdRow, Tokenized

if TYPE_CHECKING:
    from embrief.engine.media import Picture
    from embrief.engine.tokens import TextTokenizer
    from embrief.facts.prompts import Content, Rendered
    from embrief.facts.specs import ImageSpec, Template
    from embrief.files.json_files import JsonObject
    from embrief.runtimes.base import RunOptions

Run = str | int | Image
"""A text, the id of a special token of the template's, or a picture."""
_MARKERS = re.compile(r"<\|[a-z_]+\|>|<\|[a-z_]+>|<[a-z_]+\|>")
"""How the special tokens of models that take pictures are called."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A picture among the tokens of an input."""

    image: Image
    size: tuple[int, int]
    """Height and width in which the model sees it."""
    grid: tuple[int, int]
    """Tokens per column and per row."""
    start: int
    """Place of its first token."""

    @property
    def tokens(self) -> int:
        """Return how many tokens it has."""
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True, slots=True)
class Pieced:
    """Token ids of each input, cut to the limit, and where its pictures are."""

    tokens: Tokenized
    pictures: list[tuple[Placed, ...]]
    heads: list[Hashable]
    """What names the head of each input."""
    known: dict[Hashable, IdRow]
    """The ids of each head alone."""


class Pieces(ABC):
    """Tokenises inputs of one kind of model. May be used from several threads."""

    def __init__(self, tokenizer: TextTokenizer, images: ImageSpec | None, label: str) -> None:
        """Look up the special tokens.

        Args:
            tokenizer: The model's, as of `TextTokenizer.literal`.
            images: How the model takes pictures, if it does.
            label: The model's name.

        Raises:
            ModelMismatchError: The tokenizer has no special tokens for pictures.
        """
        self.tokenizer, self._images, self._label = tokenizer, images, label
        # The longest first: where one name begins another, tokenizers take the longer one.
        names = sorted(tokenizer.specials, key=len, reverse=True)
        # With none, a pattern that fits nowhere.
        self._special = re.compile("|".join(map(re.escape, names)) or r"(?!)")
        self._mark = None if images is None else self._ids_of(images)

    def _ids_of(self, images: ImageSpec) -> tuple[IdRow, int, IdRow]:
        """Return what stands before a picture, the id of each of its tokens, and what stands behind it."""
        runs = [run for run in self.template(images.mark) if run != ""]
        ids = [run for run in runs if isinstance(run, int)]
        pad = self.tokenizer.specials.get(images.pad)
        if len(ids) != len(runs) or pad is None or ids.count(pad) != 1:
            raise ModelMismatchError(
                f"the tokenizer of {self._label} lacks the special tokens of pictures, {images.mark}; fetch "
                "tokenizer.json again: this is the one of a model that reads texts"
            )
        place = ids.index(pad)
        return np.array(ids[:place], np.int32), pad, np.array(ids[place + 1 :], np.int32)

    def template(self, text: str, written: Iterable[tuple[int, int]] = ()) -> list[str | int]:
        """Return a part of a template as texts and special tokens in turn, which begins and ends with a text.

        Args:
            text: The part.
            written: The places in it that callers wrote, in which no special token is looked for.
        """
        runs: list[str | int] = [""]
        done = 0

        def add(piece: str) -> None:
            runs[-1] = f"{runs[-1]}{piece}"

        for start, stop in (*written, (len(text), len(text))):
            for found in self._special.finditer(text, done, start):
                add(text[done : found.start()])
                runs.extend((self.tokenizer.specials[found[0]], ""))
                done = found.end()
            add(text[done:stop])
            done = stop
        return runs

    def runs(self, item: Rendered, body: Content) -> list[Run]:
        """Return head, query, middle and a body as texts, special tokens and pictures."""
        runs: list[Run] = [*self.template(item.head, item.written)]
        if item.query is not None:
            _append(runs, item.query)
            first, *rest = self.template(item.middle)
            runs[-1] = f"{runs[-1]}{first}"
            runs += rest
        _append(runs, body)
        return runs

    def tokenize(self, inputs: Sequence[Rendered], options: RunOptions) -> Pieced:
        """Return the token ids of inputs; the text at the end of one over the limit is cut, and nothing else.

        Tail and final tokens stay, and so do pictures with all that stands before them.

        Raises:
            InputTooLongError: An input is over the limit and may not be cut, or nothing of its text would be left.
            ModelMismatchError: An input holds a picture, and the model takes none.
        """
        before, behind = self.around
        inputs = list(inputs)
        tails = self._assembled([self.template(item.tail) for item in inputs], options)
        fronts = self._assembled([self.runs(item, item.body) for item in inputs], options)
        ends = [np.concatenate((tail, behind)) for tail, _ in tails]
        heads: list[Hashable] = [(item.head, item.written) for item in inputs]
        alone = dict(zip(heads, inputs, strict=True))
        opened = self._assembled([self.template(head.head, head.written) for head in alone.values()], options)
        known = {name: np.concatenate((before, ids)) for name, (ids, _) in zip(alone, opened, strict=True)}
        counts = np.array([len(before) + len(ids) + len(end) for (ids, _), end in zip(fronts, ends, strict=True)])
        long = np.flatnonzero(counts > options.max_tokens).tolist()
        self._check_room(inputs, [len(end) for end in ends], long, options)
        if long and options.refuse_long:
            raise self._too_long(long[0], int(counts[long[0]]), options)
        rows, pictures = [], []
        for (ids, placed), end in zip(fronts, ends, strict=True):
            front = np.concatenate((before, ids))[: max(options.max_tokens - len(end), 0)]
            rows.append(np.concatenate((front, end)))
            pictures.append(tuple(_moved(picture, len(before)) for picture in placed) if len(before) else placed)
        return Pieced(Tokenized(rows, counts, counts > options.max_tokens), pictures, heads, known)

    def _assembled(
        self, inputs: Sequence[Sequence[Run]], options: RunOptions
    ) -> list[tuple[IdRow, tuple[Placed, ...]]]:
        """Return the ids of runs, and the pictures among them."""
        texts = dict.fromkeys(run for runs in inputs for run in runs if isinstance(run, str) and run)
        known = dict(zip(texts, self.tokenizer.plain(list(texts)), strict=True))
        found = []
        for runs in inputs:
            parts: list[IdRow] = []
            placed: list[Placed] = []
            length = 0
            for run in runs:
                if isinstance(run, Image):
                    part = self.picture_ids(run, options)
                    placed.append(Placed(run, *self._seen(run, options), length + len(self._marks()[0])))
                elif isinstance(run, int):
                    part = np.array([run], np.int32)
                elif run:
                    part = known[run]
                else:
                    continue
                parts.append(part)
                length += len(part)
            found.append((np.concatenate(parts) if parts else np.empty(0, np.int32), tuple(placed)))
        return found

    def picture_ids(self, image: Image, options: RunOptions) -> IdRow:
        """Return the ids of a picture: its marks, and one for each of its tokens between them.

        Raises:
            ModelMismatchError: The model takes none.
        """
        before, pad, behind = self._marks()
        rows, columns = self._seen(image, options)[1]
        return np.concatenate((before, np.full(rows * columns, pad, np.int32), behind))

    def _marks(self) -> tuple[IdRow, int, IdRow]:
        if self._mark is None:
            raise ModelMismatchError(f"{self._label} takes texts only, and was given a picture")
        return self._mark

    def _seen(self, image: Image, options: RunOptions) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the size in which a picture is seen, and its tokens per column and row."""
        assert self._images is not None
        high, wide = self._images.fitted(*image.size, options.max_pixels)
        return (high, wide), (high // self._images.unit, wide // self._images.unit)

    def _check_room(
        self, inputs: Sequence[Rendered], ends: Sequence[int], long: Sequence[int], options: RunOptions
    ) -> None:
        """Refuse what has to stay of long inputs, if it leaves no room for text."""
        kept = self._assembled([self.runs(inputs[place], _uncut(inputs[place].body)) for place in long], options)
        for place, (ids, pictures) in zip(long, kept, strict=True):
            tokens = len(self.around[0]) + len(ids) + ends[place]
            if tokens >= options.max_tokens:
                raise _pictures_too_long(place, tokens, options) if pictures else self._no_room(place, tokens, options)

    @property
    @abstractmethod
    def around(self) -> tuple[IdRow, IdRow]:
        """The special tokens that stand in front of an input and behind it."""

    @abstractmethod
    def _too_long(self, index: int, tokens: int, options: RunOptions) -> InputTooLongError:
        """Return the error for an input that may not be cut."""

    @abstractmethod
    def _no_room(self, index: int, tokens: int, options: RunOptions) -> InputTooLongError:
        """Return the error for a limit that leaves nothing of a text."""


class TextPieces(Pieces):
    """Inputs of an embedding model, whose tokenizer puts special tokens around them."""

    @property
    def around(self) -> tuple[IdRow, IdRow]:
        """What the tokenizer puts around a text."""
        return self.tokenizer.around

    def _too_long(self, index: int, tokens: int, options: RunOptions) -> InputTooLongError:
        return too_long(index, tokens, options)

    def _no_room(self, index: int, tokens: int, options: RunOptions) -> InputTooLongError:
        return no_room(index, tokens, options)


class PairPieces(Pieces):
    """Pairs of a reranker, whose template holds all special tokens."""

    @property
    def around(self) -> tuple[IdRow, IdRow]:
        """None."""
        nothing = np.empty(0, np.int32)
        return nothing, nothing

    def _too_long(self, index: int, tokens: int, options: RunOptions) -> InputTooLongError:
        return too_long(index, tokens, options, "the query with the document")

    def _no_room(self, index: int, tokens: int, options: RunOptions) -> InputTooLongError:
        return query_too_long(index, tokens, options)


def check_vision_tokens(tokenizer: TextTokenizer, images: ImageSpec, templates: Iterable[Template], label: str) -> None:
    """Refuse a tokenizer that would read the markers of a template as letters.

    Args:
        tokenizer: The model's.
        images: How it takes pictures.
        templates: What stands around its inputs.
        label: Its name.

    Raises:
        ModelMismatchError: It has no special token of that name.
    """
    wanted = [name for part in templates for name in _MARKERS.findall(f"{part.head}{part.tail}{images.mark}")]
    if missing := [name for name in dict.fromkeys(wanted) if name not in tokenizer.specials]:
        raise ModelMismatchError(
            f"the tokenizer of {label} has no special token {missing[0]!r}, which stands in the model's prompt; fetch "
            "tokenizer.json again"
        )


def check_picture_ids(config: JsonObject, tokenizer: TextTokenizer, images: ImageSpec) -> None:
    """Refuse a config.json that has other ids for the tokens of pictures than the tokenizer.

    Raises:
        ModelMismatchError: It has.
    """
    start, end = images.mark.split(images.pad)
    for key, name in (
        ("image_token_id", images.pad),
        *((key, start) for key in ("vision_start_token_id", "boi_token_id")),
        *((key, end) for key in ("vision_end_token_id", "eoi_token_id")),
    ):
        number = config.count(key)
        if number is not None and number != tokenizer.specials.get(name):
            raise ModelMismatchError(
                f"{key!r} in {config.file} is {number}, and in tokenizer.json {name!r} is "
                f"{tokenizer.specials.get(name)}; fetch both files again: they are not of one model"
            )


def pictures(placed: Sequence[Placed], index: int) -> tuple[Picture, ...]:
    """Return pictures in the sizes in which the model sees them: for a batch, since those of a corpus fill memory.

    Args:
        placed: Those of one input.
        index: Its place in the batch, for errors.

    Raises:
        ArgumentError: The file of one is gone, or has changed since it was first read.
    """
    from embrief.engine.media import Picture
    from embrief.images.patches import fit

    try:
        return tuple(Picture(fit(item.image.pixels, item.size), item.start, item.grid) for item in placed)
    except ArgumentError as error:
        raise ArgumentError(f"the input at index {index}: {error}", index=index) from error


def _append(runs: list[Run], content: Content) -> None:
    """Put what callers wrote behind runs; texts side by side are one."""
    for part in content if isinstance(content, tuple) else (content,):
        if isinstance(part, Image):
            runs += [part, ""]
        else:
            runs[-1] = f"{runs[-1]}{part}"


def _uncut(body: Content) -> Content:
    """Return what of a body is never cut: its pictures and what stands before them."""
    if isinstance(body, str):
        return ""
    last = max((place for place, part in enumerate(body) if isinstance(part, Image)), default=-1)
    return body[: last + 1]


def _moved(picture: Placed, by: int) -> Placed:
    return replace(picture, start=picture.start + by)


def _pictures_too_long(index: int, tokens: int, options: RunOptions) -> InputTooLongError:
    return InputTooLongError(
        f"the pictures of the input at index {index} have {tokens} tokens with the prompt around them, which leaves no "
        f"room within the limit of {options.max_tokens}, and pictures are never cut; make max_pixels smaller, raise "
        "max_tokens, or pass fewer pictures",
        index=index,
        tokens=tokens,
        limit=options.max_tokens,
    )
