"""The results as tables, for a terminal and for a page, and the comparison of two runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from embrief.errors import ArgumentError
from embrief.evaluation.measures import NAMES, difference
from embrief.evaluation.results import gain

if TYPE_CHECKING:
    from embrief.evaluation.results import Results

HEAD = ("system", NAMES[0], "95 %", *NAMES[1:], "gain", "p", "on", "seconds")
COMPARED = ("set", "measure", "first", "second", "gain (95 %)", "p")


def tables(results: Results) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """Yield a title and the cells of each line under `HEAD`, set by set."""
    for name, rows in results.sets().items():
        title = f"{name}: {rows[0]['documents']:,} documents, {rows[0]['queries']:,} questions"
        yield title, [_cells(row, rows) for row in rows]


def _cells(row: dict[str, Any], rows: list[dict[str, Any]]) -> tuple[str, ...]:
    found = row["measures"]
    first = found[NAMES[0]]
    against = gain(row, rows)
    return (
        row["system"],
        f"{first['mean']:.3f}",
        f"{first['low']:.3f}-{first['high']:.3f}",
        *(f"{found[measure]['mean']:.3f}" for measure in NAMES[1:]),
        *(("", "", "") if against is None else (f"{against[1].mean:+.3f}", _p(against[1].p), against[0])),
        f"{sum(row['seconds'].values()):.1f}",
    )


def _p(chance: float) -> str:
    return "<0.001" if chance < 0.001 else f"{chance:.3f}"


def notes(results: Results) -> list[str]:
    """Return what a reader must know to take the figures for what they are."""
    used = dict.fromkeys(f"{name} {version}" for row in results.rows for name, version in row["versions"].items())
    cut = [
        f"{row['set']}: {row['truncated']:,} of {row['documents']:,} documents are longer than the limit of "
        f"{row['system']} and lost their end."
        for row in results.rows
        if row["truncated"]
    ]
    return [
        *cut,
        "Exact search. 95 %: interval of the mean, from resampling the questions. gain: what a line gains on the one "
        "named after it, in nDCG@10; p: how often chance alone would give as much, paired, two-sided.",
        ", ".join(used),
    ]


def markdown(results: Results) -> str:
    """Return tables and notes for a page."""
    parts: list[str] = []
    for title, rows in tables(results):
        body = [HEAD, ("---", *["---:"] * (len(HEAD) - 1)), *rows]
        cells = [" | ".join(cell.replace("|", "\\|") for cell in line) for line in body]
        parts.append(f"{title}\n\n" + "\n".join(f"| {line} |" for line in cells))
    parts.append("\n".join(f"- {note}" for note in notes(results)))
    return "\n\n".join(parts) + "\n"


def compare(
    first: Results, second: Results, first_system: str | None = None, second_system: str | None = None
) -> list[dict[str, Any]]:
    """Return what the second run gains over the first, for every set, system and measure that both have.

    Args:
        first: A run.
        second: Another, or the same.
        first_system: Which line of the first run to take; by default each is compared with the one of the same name,
            or, where a set has one line in both runs, with that.
        second_system: Which line of the second run to take.

    Raises:
        ArgumentError: There is no such line, or the runs have nothing in common.
    """
    found: list[dict[str, Any]] = []
    for name, rows in first.sets().items():
        others = second.sets().get(name, [])
        for row, other in _pairs(rows, others, first_system, second_system):
            if row["digest"] != other["digest"]:
                raise ArgumentError(f"{name} is not the same set in both files; evaluate both on the same files")
            for measure in NAMES:
                gained = difference(row["per_query"][measure], other["per_query"][measure])
                found.append(
                    {
                        "set": name,
                        "measure": measure,
                        "first": row["system"],
                        "second": other["system"],
                        "first_mean": row["measures"][measure]["mean"],
                        "second_mean": other["measures"][measure]["mean"],
                        "gain": gained.mean,
                        "low": gained.low,
                        "high": gained.high,
                        "p": gained.p,
                    }
                )
    if not found:
        raise ArgumentError(
            "the two files have no set and system in common; name the systems to compare with --first and --second: "
            f"there are {_systems(first)} and {_systems(second)}"
        )
    return found


def compared_cells(found: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Yield the cells of each comparison under `COMPARED`."""
    for item in found:
        yield (
            item["set"],
            item["measure"],
            f"{item['first_mean']:.3f} {item['first']}",
            f"{item['second_mean']:.3f} {item['second']}",
            f"{item['gain']:+.3f} ({item['low']:+.3f} to {item['high']:+.3f})",
            _p(item["p"]),
        )


def _pairs(
    rows: list[dict[str, Any]], others: list[dict[str, Any]], first: str | None, second: str | None
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    if first is None and second is None and len(rows) == len(others) == 1:
        return [(rows[0], others[0])]
    named = {row["system"]: row for row in others}
    return [
        (row, named[second or row["system"]])
        for row in rows
        if (first is None or row["system"] == first) and (second or row["system"]) in named
    ]


def _systems(results: Results) -> str:
    return ", ".join(dict.fromkeys(repr(row["system"]) for row in results.rows)) or "none"
