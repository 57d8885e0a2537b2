"""Token by token what a model reads, for people to look at; not the path that computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from embrief.runtimes.base import Token

if TYPE_CHECKING:
    from tokenizers import Encoding

    from embrief.engine.tokens import TextTokenizer
    from embrief.facts.prompts import Rendered
    from embrief.runtimes.base import RunOptions
    from embrief.runtimes.pieces import Pieces, Run


def marked_texts(tokenizer: TextTokenizer, inputs: Sequence[Rendered]) -> list[list[Token]]:
    """Return the tokens of texts. A tail stands before the special tokens at the end, as in `torch_common.tokenize`."""
    found = tokenizer.encodings([item.head + item.words for item in inputs], special=True)
    return [_with_tail(tokenizer, each, item, tokenizer.end) for each, item in zip(found, inputs, strict=True)]


def marked_pairs(tokenizer: TextTokenizer, inputs: Sequence[Rendered]) -> list[list[Token]]:
    """Return the tokens of pairs, whose template holds all special tokens, as `rerank_common.pair_ids` does."""
    found = tokenizer.encodings([item.head + item.words for item in inputs], special=False)
    return [_with_tail(tokenizer, each, item, 0) for each, item in zip(found, inputs, strict=True)]


def marked_pieces(pieces: Pieces, inputs: Sequence[Rendered], options: RunOptions) -> list[list[Token]]:
    """Return the tokens of inputs that may hold pictures, with their places in `Rendered.shown`.

    All tokens of a picture have the place of its mark, and their names for a text.
    """
    return [_of_pieces(pieces, item, options) for item in inputs]


def _of_pieces(pieces: Pieces, item: Rendered, options: RunOptions) -> list[Token]:
    tokenizer, markers = pieces.tokenizer, pieces.tokenizer.markers
    before, behind = pieces.around
    found = [_named(tokenizer, int(number)) for number in before]
    place = 0
    runs: list[Run] = [*pieces.runs(item, item.body), *pieces.template(item.tail)]
    for run in runs:
        if isinstance(run, str):
            (each,) = tokenizer.encodings([run], special=False)
            found += _tokens(each, run, place, markers)
            place += len(run)
            continue
        name = tokenizer.name(run) if isinstance(run, int) else item.source.image_mark
        ids = [run] if isinstance(run, int) else pieces.picture_ids(run, options).tolist()
        found += [_named(tokenizer, number, place, place + len(name)) for number in ids]
        place += len(name)
    return [*found, *(_named(tokenizer, int(number)) for number in behind)]


def _named(tokenizer: TextTokenizer, number: int, start: int | None = None, stop: int | None = None) -> Token:
    return Token(number, tokenizer.name(number), special=True, start=start, stop=stop)


def _with_tail(tokenizer: TextTokenizer, front: Encoding, item: Rendered, end: int) -> list[Token]:
    markers = tokenizer.markers
    tokens = _tokens(front, item.head + item.words, 0, markers)
    if not item.tail:
        return tokens
    (behind,) = tokenizer.encodings([item.tail], special=False)
    place = len(tokens) - end
    return [*tokens[:place], *_tokens(behind, item.tail, len(item.head + item.words), markers), *tokens[place:]]


def _tokens(found: Encoding, text: str, shift: int, markers: frozenset[int]) -> list[Token]:
    rows = zip(found.ids, found.tokens, found.offsets, found.special_tokens_mask, strict=True)
    return [
        Token(number, name, special=True)
        if around
        else Token(number, text[start:stop], number in markers, start + shift, stop + shift)
        for number, name, (start, stop), around in rows
    ]
