"""Texts of wanted token lengths, cut out of docstrings. The same tokenizer and seed give the same texts."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from embrief.bench.tokenizer import docstrings
from embrief.errors import ArgumentError

if TYPE_CHECKING:
    from pathlib import Path

_TRIES = 200


def load_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of a model folder, without truncation or padding."""
    from tokenizers import Tokenizer

    from embrief.files.modules import transformer_folder

    tokenizer = Tokenizer.from_file(str(transformer_folder(folder) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of each text, special tokens included."""
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]


def make_texts(tokenizer: Any, lengths: Sequence[int], render: Callable[[str], str], seed: int) -> list[str]:
    """Return one distinct text per wanted length.

    Args:
        tokenizer: What counts.
        lengths: Tokens of each text once it is rendered, special tokens included.
        render: Puts a prompt in front of a text.
        seed: Decides which words are taken.

    Raises:
        ArgumentError: A length is shorter than the prompt, or none of many tries has it.
    """
    picks = random.Random(seed)
    words = " ".join(docstrings()).split()
    prompt = len(render(""))
    found: dict[str, None] = {}
    for length in lengths:
        for _ in range(_TRIES):
            start = picks.randrange(max(1, len(words) - length - 1))
            whole = render(" ".join(words[start : start + length + 1]))
            text = _cut(tokenizer, whole, length, prompt)
            if text and text not in found and len(tokenizer.encode(render(text)).ids) == length:
                found[text] = None
                break
        else:
            raise ArgumentError(f"no text of {length} tokens could be made with this model's tokenizer and prompt")
    return list(found)


def _cut(tokenizer: Any, whole: str, length: int, prompt: int) -> str:
    """Return the part after the prompt that ends where the text should have its last token."""
    encoding = tokenizer.encode(whole)
    special = sum(encoding.special_tokens_mask)
    ends = [end for (_, end), mask in zip(encoding.offsets, encoding.special_tokens_mask, strict=True) if not mask]
    last = length - special - 1
    return whole[prompt : ends[last]].strip() if 0 <= last < len(ends) else ""


def chunk_lengths(count: int, seed: int) -> list[int]:
    """Return the lengths of chunks of documents: log-normal, median 120, 20 to 512 tokens."""
    picks = random.Random(seed)
    return [round(min(512.0, max(20.0, picks.lognormvariate(4.787, 0.7)))) for _ in range(count)]


def even_lengths(count: int, low: int, high: int, seed: int) -> list[int]:
    """Return lengths between two bounds, each equally likely."""
    picks = random.Random(seed)
    return [picks.randint(low, high) for _ in range(count)]
