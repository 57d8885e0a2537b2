"""Token by token what a model reads, for people to look at; not the path that computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from embrief.runtimes.base import Token

if TYPE_CHECKING:
    from tokenizers import Encoding

    from embrief.engine.tokens import TextTokenizer
    from embrief.facts.prompts import Rendered


def marked_texts(tokenizer: TextTokenizer, inputs: Sequence[Rendered]) -> list[list[Token]]:
    """Return the tokens of texts. A tail stands before the special tokens at the end, as in `torch_common.tokenize`."""
    found = tokenizer.encodings([item.head + item.words for item in inputs], special=True)
    return [_with_tail(tokenizer, each, item, tokenizer.end) for each, item in zip(found, inputs, strict=True)]


def marked_pairs(tokenizer: TextTokenizer, inputs: Sequence[Rendered]) -> list[list[Token]]:
    """Return the tokens of pairs, whose template holds all special tokens, as `rerank_common.pair_ids` does."""
    found = tokenizer.encodings([item.head + item.words for item in inputs], special=False)
    return [_with_tail(tokenizer, each, item, 0) for each, item in zip(found, inputs, strict=True)]


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
