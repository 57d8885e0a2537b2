"""How large a picture may be before anything of it is decoded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """What a picture may be; what is over a limit is refused by its header."""

    max_bytes: int = 20 * 1024 * 1024
    """Bytes of the encoded file."""
    max_pixels: int = 64_000_000
    """Width times height."""
    max_aspect: float = 200.0
    """How often the longer side may hold the shorter one; the processor of Qwen3-VL has the same."""


LIMITS = ImageLimits()
"""Those of every picture that was made without its own."""
