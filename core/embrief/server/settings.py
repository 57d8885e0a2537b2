"""What a server allows: one table of limits, which options, `/info`, docs and tests are made from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields

from embrief.errors import ArgumentError

HOST = "127.0.0.1"
PORT = 8642
"""None of the ports that other servers of models and of web pages take (8000, 8080, 7997, 11434)."""


def _limit(default: int, least: int, says: str) -> int:
    found: int = field(default=default, metadata={"least": least, "help": says})
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much one request, one key and all together may ask for. Each field is an option of `embrief serve`."""

    max_body_bytes: int = _limit(8 * 1024 * 1024, 1, "Bytes of a request's body; a larger one gets 413.")
    max_items: int = _limit(2048, 1, "Texts in one request; more get 413.")
    max_request_tokens: int = _limit(
        300_000, 1, "Tokens of all texts of one request, by the model's own tokenizer; more get 413."
    )
    max_rerank_documents: int = _limit(1000, 1, "Documents in one rerank; more get 413.")
    max_images: int = _limit(64, 0, "Pictures in one request; more get 413.")
    max_image_bytes: int = _limit(20 * 1024 * 1024, 1, "Bytes of one picture's file; a larger one gets 400.")
    max_image_pixels: int = _limit(
        32_000_000, 1, "Width times height of one picture, by its header; a larger one gets 400."
    )
    max_waiting: int = _limit(512, 1, "Requests that are worked on or wait at a time; further ones get 429.")
    deadline: int = _limit(60, 1, "Seconds that one request may take, its body included; then it gets 503.")
    requests_per_minute: int = _limit(
        0,
        0,
        "Requests per minute and key, without keys of all callers together; further ones get 429. 0: any number.",
    )

    def __post_init__(self) -> None:
        for limit in LIMITS:
            value = getattr(self, limit.name)
            if isinstance(value, bool) or not isinstance(value, int) or value < limit.least:
                raise ArgumentError(f"{limit.name}={value!r} cannot be: it is a whole number, {limit.least} or more")

    def values(self) -> dict[str, int]:
        """Return the limits by name."""
        return {limit.name: getattr(self, limit.name) for limit in LIMITS}


@dataclass(frozen=True, slots=True)
class Limit:
    """One line of the table."""

    name: str
    default: int
    least: int
    help: str

    @property
    def option(self) -> str:
        """Return its name on the command line."""
        return "--" + self.name.replace("_", "-")


def _table() -> Iterator[Limit]:
    for item in fields(Limits):
        yield Limit(item.name, item.default, item.metadata["least"], item.metadata["help"])  # type: ignore[arg-type]


LIMITS: tuple[Limit, ...] = tuple(_table())
"""Every limit there is."""
