"""How large a picture may be before anything of it is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real

from embrief.errors import ArgumentError, ArgumentTypeError


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """What a picture may be; what is over a limit is refused by its header.

    Raises:
        ArgumentTypeError: A limit is no number, or one that counts is no whole number.
        ArgumentError: A limit is less than 1, so that no picture could be taken.
    """

    max_bytes: int = 20 * 1024 * 1024
    """Bytes of the encoded file."""
    max_pixels: int = 64_000_000
    """Width times height."""
    max_aspect: float = 200.0
    """How often the longer side may hold the shorter one; the processor of Qwen3-VL has the same."""

    def __post_init__(self) -> None:
        """Check the limits."""
        _check(self.max_bytes, "max_bytes", whole=True)
        _check(self.max_pixels, "max_pixels", whole=True)
        _check(self.max_aspect, "max_aspect", whole=False)


def _check(value: object, what: str, *, whole: bool) -> None:
    """Refuse what is no number of at least 1; `True` is none."""
    told = f"{what} of ImageLimits is a {'whole ' if whole else ''}number, not {type(value).__name__}"
    if isinstance(value, bool) or not isinstance(value, Real) or (whole and not isinstance(value, Integral)):
        raise ArgumentTypeError(told)
    # NaN, too, is not at least 1.
    if not float(value) >= 1:
        raise ArgumentError(f"{what}={value} of ImageLimits must be at least 1")


def check_limits(value: object) -> None:
    """Refuse what are no limits.

    Raises:
        ArgumentTypeError: It is something else.
    """
    if not isinstance(value, ImageLimits):
        raise ArgumentTypeError(
            f"limits are ImageLimits(...), not {type(value).__name__}; leave them out for the usual ones"
        )


LIMITS = ImageLimits()
"""Those of every picture that was made without its own."""
