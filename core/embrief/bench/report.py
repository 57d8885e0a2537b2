"""The results as lines of a table, for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embrief.bench.results import Results

ST = "sentence-transformers"
HEAD = ("row", "what runs", "tokens/s", "vs default", "vs best", "of limit", "to fp32: cos min, mean")


def lines(results: Results) -> Iterator[tuple[str, ...]]:
    """Yield the cells of each line under `HEAD`. The first line of a row has its key, the others an empty cell."""
    for key, row in results.rows.items():
        cells = {"load": _load_cells, "start": _load_cells, "server": _server_cells}.get(row["how"], _cells)
        for number, run in enumerate(row["runs"]):
            first = key if number == 0 else ""
            if "unavailable" in run:
                yield (first, run["name"], "not available", "", "", "", "")
            else:
                yield (first, run["name"], *cells(run))


def _cells(run: dict[str, Any]) -> tuple[str, ...]:
    speed = f"{run['tokens_per_s']:,.0f}"
    if "latency_s" in run:
        speed = f"{1000 * run['latency_s']:,.0f} ms"
    if "overhead" in run:
        return speed, "", "", "", f"{run['overhead']:+.1%} time" if run["name"] != "embrief" else ""
    against = _times(run.get("vs_default")), _times(run.get("vs_best"))
    if run.get("faster") is not None:
        against = "", f"{run['faster']:,.0f}x of computing"
    if "vs_embrief" in run:
        against = against[0], f"{run['vs_embrief']:.2f} of {run['against']}"
    limit = f"{run['of_ceiling']:.0%}" if "of_ceiling" in run else ""
    return speed, *against, limit, _error(run)


def _load_cells(run: dict[str, Any]) -> tuple[str, ...]:
    """Return the cells of a process of its own: seconds to import and to load, and the most memory it held."""
    return f"{run['import_s']:.1f} + {run['load_s']:.1f} s", "", "", "", _megabytes(run["peak_batch_bytes"])


def _server_cells(run: dict[str, Any]) -> tuple[str, ...]:
    """Return the cells of requests to a server: texts per second, and what a request takes beside the bare library."""
    bare = "" if run["of_bare"] == 1 else f"{run['of_bare']:.2f} of httpx"
    return f"{run['texts_per_s']:,.0f} texts/s", "", bare, "", _error(run)


def _megabytes(count: float | None) -> str:
    return "not measured" if count is None else f"{count / 1e6:,.0f} MB"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}x"


def _error(run: dict[str, Any]) -> str:
    """Return how far a run is from the oracle: least and mean cosine, or largest and mean difference of scores."""
    if "cosine_min" in run:
        return f"{run['cosine_min']:.6f}, {run['cosine_mean']:.6f}"
    return f"score off by {run['difference_max']:.1e}, {run['difference_mean']:.1e}"


def notes(results: Results) -> list[str]:
    """Return one line per row that says what was run, and with what it has to be taken."""
    found: list[str] = []
    for key, row in results.rows.items():
        parts = [f"{row['title']}: {_size(row)}"]
        parts.append(f"{row['rounds']} rounds" if row["rounds"] > 1 else "1 round")
        if "padding" in row and row["padding"] > 1.005:
            parts.append(f"the default pads to {row['padding']:.2f}x the tokens")
        if row.get("ceiling"):
            parts.append(f"limit {row['ceiling'] / 1e9:,.0f} GFLOP/s in {row['ceiling_format']}")
        if row.get("memory_ratio") is not None:
            parts.append(
                f"seconds to import and to load, and peak memory after one batch, {row['memory_ratio']:.2f}x that of ST"
            )
        parts += [*filter(None, [row.get("note")]), *row["warnings"]]
        found.append(f"{key} ({'; '.join(parts)})")
    missing = [run for row in results.rows.values() for run in row["runs"] if "unavailable" in run]
    found += dict.fromkeys(f"{run['name']} is not available: {run['unavailable']}" for run in missing)
    return found


def _size(row: dict[str, Any]) -> str:
    if row["how"] != "server":
        return f"{row['texts']} texts, {row['tokens']:,} tokens, {row['layers']} layers"
    ours = row["runs"][0]
    return (
        f"{row['texts']} texts of {row['values']:,} values each, {row['requests']} requests in turn, "
        f"{1000 * ours['request_s']:.1f} ms each, of which {1000 * ours['own_s']:.1f} ms more than httpx, json and "
        "base64 alone take"
    )


def setting(results: Results) -> str:
    """Return machine, versions and date in one line."""
    machine, versions = results.identity["machine"], results.identity["versions"]
    dates = sorted(row["date"][:10] for row in results.rows.values())
    libraries = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    span = "" if not dates else f"{dates[0]}; " if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}; "
    return f"{span}{machine['processor']}, {machine['threads']} threads, {machine['device']}; {libraries}; ST is {ST}"


def markdown(results: Results) -> str:
    """Return table and notes for a page."""
    body = [HEAD, tuple("---" if place < 2 else "--:" for place in range(len(HEAD))), *lines(results)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in body)
    below = "\n".join(f"- {note}" for note in notes(results))
    return f"{setting(results)}\n\n{table}\n\n{below}\n"
