"""Which rows there are, what each needs, and about how long it takes."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from embrief.errors import ArgumentError

if TYPE_CHECKING:
    from embrief.bench.workloads import Name

Model = Literal["qwen3", "gemma", "gemma2", "reranker", "vision", "vision reranker"]
How = Literal["server", "speed", "load", "wrapper", "cache", "runtime", "start"]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a workload, or another thing to measure."""

    key: str
    title: str
    how: How
    model: Model
    workload: Name
    short: bool = False
    """Whether it may run with fewer layers, because it takes very long."""
    shares: bool = False
    """Whether its texts share a prefix, so that fewer tokens are computed than there are."""

    @property
    def pairs(self) -> bool:
        """Whether its model is a reranker."""
        return self.model in ("reranker", "vision reranker")

    @property
    def sees(self) -> bool:
        """Whether its model reads pictures."""
        return self.model in ("vision", "vision reranker")


# Short ones first: they tell how long the others will take.
ROWS = (
    # Model and workload mean nothing here: the answer is ready.
    Row("server", "requests to a server that answers at once", "server", "qwen3", "query"),
    Row("query", "one query, latency", "speed", "qwen3", "query", shares=True),
    Row("queries", "queries of 8-20 tokens with their prompt", "speed", "qwen3", "queries", shares=True),
    Row("u", "chunks of equal length", "speed", "qwen3", "equal"),
    Row("rerank", "one query and its candidates", "speed", "reranker", "candidates", shares=True),
    Row("gemma", "chunks, EmbeddingGemma", "speed", "gemma", "gemma"),
    Row("gemma2", "chunks, EmbeddingGemma 2", "speed", "gemma2", "gemma"),
    Row("c", "long chunks, 300-1000 tokens", "speed", "qwen3", "long", short=True),
    Row("b", "chunks of documents, 20-512 tokens", "speed", "qwen3", "chunks", short=True),
    Row("photos", "pictures of 640 x 480", "speed", "vision", "photos", short=True),
    Row("pages", "A4 pages", "speed", "vision", "pages", short=True),
    Row("mixed", "texts, pictures, and both", "speed", "vision", "mixed", short=True, shares=True),
    Row("rank-pages", "one query and ten pages", "speed", "vision reranker", "ranked", short=True, shares=True),
    Row("load", "import, load and memory, in processes of their own", "load", "qwen3", "chunks"),
    Row("wrappers", "chunks through the frameworks", "wrapper", "qwen3", "chunks", short=True),
    Row("cache", "queries, computed and from the cache", "cache", "qwen3", "queries"),
    Row("runtimes chunks", "chunks, all runtimes", "runtime", "qwen3", "chunks"),
    Row("runtimes queries", "queries with their prompt, all runtimes", "runtime", "qwen3", "queries"),
    Row("runtimes query", "one query, latency, all runtimes", "runtime", "qwen3", "query"),
    Row("runtimes rerank", "one query and its candidates, all runtimes", "runtime", "reranker", "candidates"),
    Row("runtimes load", "import, load and memory, all runtimes", "start", "qwen3", "chunks"),
)
NAMES = tuple(dict.fromkeys(row.key.partition(" ")[0] for row in ROWS))
"""What rows are asked for by: the first word of their keys."""


def choose(only: Sequence[str] | None) -> tuple[Row, ...]:
    """Return the rows asked for, in their usual order.

    Args:
        only: Keys; `None` for all.

    Raises:
        ArgumentError: There is no such row; the message lists those there are.
    """
    for name in only or ():
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ArgumentError(f"there is no row {name!r}; use some of {', '.join(NAMES)}{hint}")
    return tuple(row for row in ROWS if only is None or row.key.partition(" ")[0] in only)


def passes(row: Row, rounds: int) -> float:
    """Return about how many times a row runs its texts, counted in runs at half the machine's limit."""
    if row.how == "server":
        return 0.0
    if row.how == "speed":
        # Each round: two formats of ours and two batch sizes of theirs, with padding. Once: a sample and float32.
        return 7 * rounds + 17
    # A dozen runtimes, most slower than the engine; each runs its texts about twice before the clock starts.
    many = {"runtime": 40.0 * (rounds + 2), "start": 80.0}
    return {"load": 8.0 * rounds, "wrapper": 4.0 * max(rounds, 5), "cache": rounds + 4.0, **many}[row.how]
