"""What the rerankers on torch share: pairs to token ids, and a check of the folder's own score head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from embrief.errors import InputTooLongError, ModelMismatchError
from embrief.files.json_files import read_object
from embrief.files.modules import read_modules
from embrief.runtimes.base import too_long
from embrief.runtimes.torch_common import IdRow, Tokenized

if TYPE_CHECKING:
    from pathlib import Path

    from embrief.facts.prompts import Rendered
    from embrief.runtimes.base import RunOptions


def pair_ids(
    pairs: Sequence[Rendered], encode: Callable[[Sequence[str]], list[IdRow]], options: RunOptions
) -> tuple[Tokenized, dict[str, IdRow]]:
    """Cut the end of each document so that head, document and tail fit; the tail always stays whole.

    Returns:
        The pairs' token ids, and those of each head and tail alone.

    Raises:
        InputTooLongError: A query leaves no room for a document, or a pair is too long and may not be cut.
    """
    texts = list(dict.fromkeys(part for pair in pairs for part in (pair.head, pair.tail)))
    parts = dict(zip(texts, encode(texts), strict=True))
    # Head and document are tokenised in one piece: a byte-pair merge may cross the seam.
    bodies = encode([pair.head + pair.words for pair in pairs])
    rows: list[IdRow] = []
    counts: list[int] = []
    for index, (pair, body) in enumerate(zip(pairs, bodies, strict=True)):
        head, tail = parts[pair.head], parts[pair.tail]
        counts.append(len(body) + len(tail))
        if counts[-1] > options.max_tokens and len(head) + len(tail) >= options.max_tokens:
            raise query_too_long(index, len(head) + len(tail), options)
        rows.append(np.concatenate([body[: options.max_tokens - len(tail)], tail]))
    refuse_long_pairs(counts, options)
    return Tokenized(rows, np.array(counts), np.array(counts) > options.max_tokens), parts


def refuse_long_pairs(counts: Sequence[int], options: RunOptions) -> None:
    """Raise for the first pair over the limit, if pairs may not be cut."""
    for index, count in enumerate(counts):
        if options.refuse_long and count > options.max_tokens:
            raise too_long(index, count, options, "the query with the document")


def query_too_long(index: int, tokens: int, options: RunOptions) -> InputTooLongError:
    """Return the error for a query that leaves no room for a document."""
    return InputTooLongError(
        f"the query of the pair at index {index} with its instruction and template has {tokens} tokens and leaves no "
        f"room for a document within the limit of {options.max_tokens}; shorten it or raise max_tokens (only documents "
        "are ever truncated)",
        index=index,
        tokens=tokens,
        limit=options.max_tokens,
    )


def check_score_head(folder: Path, label: str, *, yes: int, no: int) -> None:
    """Refuse a folder whose own score head reads other tokens than the template's answers.

    Raises:
        ModelMismatchError: It does.
    """
    for module in read_modules(folder) or ():
        if module.kind == "LogitScore":
            head = read_object(folder / module.path / "config.json")
            asked = [head.get("false_token_id"), head.get("true_token_id")]
            if asked != [no, yes]:
                raise ModelMismatchError(
                    f"the score head of {label} reads the tokens {asked} for no and yes, and the template's answers "
                    f"are {[no, yes]}; this reranker needs a record of its own"
                )
