"""How many bits of a weight a number format keeps, by the names that runtimes and files give to formats."""

from __future__ import annotations

import re

EIGHT = 8
"""Bits of a weight from which on vectors stay near those of the published weights; below that, whoever uses a model
has to measure what it still finds."""

_NAME = re.compile(r"(?:bfloat|float|bf|fp|f|uint|int|u|i|iq|tq|hqq|afq|q|mxfp|nvfp|nf|w)(\d{1,2})(?!\d)")
# The engine's int8 where 8 bits do not add up (`engine.linear`): it is held to what int8 is held to.
_OWN = {"int7": EIGHT}


def bits(dtype: str) -> int | None:
    """Return the bits of a weight in a number format, scales and offsets not counted.

    Args:
        dtype: The format as `Offer.dtype`, an artifact or a file's name has it, in either case: `"bfloat16"`, `"int8"`,
            `"q4_k_m"`, `"iq3_xs"`, `"mxfp4"`.

    Returns:
        The bits; `None` for what is no such name, as of servers, which do not say what they have.
    """
    name = dtype.lower()
    if name in _OWN:
        return _OWN[name]
    found = _NAME.match(name)
    return int(found[1]) if found else None


def is_coarse(dtype: str) -> bool:
    """Return whether a format is known to keep less than 8 bits of a weight."""
    kept = bits(dtype)
    return kept is not None and kept < EIGHT
