"""`embrief bench`: embrief against sentence-transformers, on this machine."""

from __future__ import annotations

import re
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import Annotated, Any, Literal, cast

import typer

from embrief.cli.naming import ConfigFile, meant_here
from embrief.cli.output import console, plain, print_json, print_table, table
from embrief.cli.paths import expanded
from embrief.discovery.plugins import catalog
from embrief.errors import ArgumentError

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def bench(
    only: Annotated[
        str | None,
        typer.Option(
            metavar="ROWS",
            help=(
                "server, query, queries, u, rerank, gemma, gemma2, c, b, photos, pages, mixed, rank-pages, load, "
                "wrappers, cache or runtimes; with commas between."
            ),
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A real model instead of random weights: a name or a folder; may be given several times."),
    ] = None,
    layers: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Layers of random weights; all, but 7 for b, c, wrappers and pictures, 4 for runtimes.",
        ),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="Such as 25m: what does not fit is left for the next run.")
    ] = None,
    limit: Annotated[
        str, typer.Option(metavar="TIME", help="A library that would take longer for one row is left out of it.")
    ] = "10m",
    chunks: Annotated[int | None, typer.Option(min=1, metavar="N", help="Texts of the row b (256).")] = None,
    repeats: Annotated[int, typer.Option(min=1, metavar="N", help="Rounds in which all take turns.")] = 3,
    dtype: Annotated[
        str, typer.Option(metavar="FORMATS", help="Number formats of embrief, with commas between.")
    ] = "bfloat16,int8,float32",
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="CPU threads; by default torch's own.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    folder: Annotated[
        Path | None, typer.Option(callback=expanded, help="Where random weights and results are kept.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(callback=expanded, help="The results file; results.json in the folder by default.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure everything again.")] = False,
    compare: Annotated[
        Path | None,
        typer.Option(
            callback=expanded, metavar="FILE", help="An earlier results file; ends with 1 if something got worse."
        ),
    ] = None,
    tolerance: Annotated[float, typer.Option(min=0, max=1, help="How much worse is still the same.")] = 0.05,
    config: ConfigFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a table for a page.")] = False,
    shape: Annotated[str, typer.Option(hidden=True, help="real or tiny.")] = "real",
) -> None:
    """Compare with sentence-transformers.

    Same weights, same token ids, taking turns; for pictures, with transformers and on the same pixels. Results are
    saved row by row, and a second call goes on where the first one stopped.
    """
    from embrief.bench import Settings, run
    from embrief.bench.chart import svg
    from embrief.bench.checkpoint import default_folder
    from embrief.bench.compare import regressions
    from embrief.bench.results import Results
    from embrief.bench.settings import sizes_of

    # Before hours of measuring: a file that cannot be read should say so now.
    earlier = Results.load(compare) if compare is not None else None
    if shape not in ("real", "tiny"):
        raise ArgumentError(f"--shape {shape!r} is not known; use real or tiny")
    settings = Settings(
        models=tuple(map(_model, model or ())),
        layers=layers,
        shape=cast("Literal['real', 'tiny']", shape),
        sizes=sizes_of(shape, chunks),
        repeats=repeats,
        dtypes=_names(dtype),
        threads=threads,
        device=device,
        limit=_seconds(limit, "--limit"),
    )
    place = (folder or default_folder()).expanduser().absolute()
    file = out or place / "results.json"
    errors = console(stderr=True)
    results = run(
        settings,
        folder=place,
        out=file,
        only=_names(only) if only is not None else None,
        budget=_seconds(budget, "--budget") if budget is not None else None,
        fresh=fresh,
        say=lambda message: errors.print(plain(message), style="dim", soft_wrap=True),
    )
    picture = file.with_suffix(".svg")
    picture.write_text(svg(results), "utf-8")
    _print(results, file, picture, as_json, as_markdown)
    if earlier is not None:
        worse = regressions(earlier, results, tolerance)
        for regression in worse:
            errors.print(f"worse: {regression}", style="red", soft_wrap=True)
        if worse:
            raise typer.Exit(1)
        errors.print(f"nothing is worse than in {compare}", style="green", soft_wrap=True)


def _model(name: str) -> str:
    """Return the id or folder behind a name: its weights are measured, with settings of this command's own.

    Raises:
        ArgumentError: It runs on a server, or at another commit than the one that is measured.
    """
    meant = meant_here(name)
    spec = catalog().find_model(meant.model)
    if meant.revision is not None and (spec is None or meant.revision != spec.revision):
        raise ArgumentError(
            f"{name!r} is {meant.model} at revision {meant.revision!r}, and bench takes recorded commits and folders; "
            "give a folder"
        )
    return meant.model


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _seconds(text: str, option: str) -> float:
    """Return a duration such as 25m, 1h30m or 90s in seconds."""
    found = _DURATION.fullmatch(text.strip())
    if found is None or not any(found.groups()):
        raise ArgumentError(f"{option} {text!r} is no duration; write 25m, 90s or 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return 3600.0 * hours + 60 * minutes + seconds


def _print(results: Any, file: Path, picture: Path, as_json: bool, as_markdown: bool) -> None:
    from embrief.bench.report import HEAD, lines, markdown, notes, setting

    if as_json:
        print_json(results.to_json())
        return
    if as_markdown:
        print(markdown(results), end="")
        return
    out = console()
    out.print(plain(setting(results)), style="dim", soft_wrap=True)
    shown = table(*HEAD)
    for cells in lines(results):
        shown.add_row(*map(plain, cells))
    print_table(out, shown)
    out.print()
    for note in notes(results):
        out.print(plain(note), style="dim", soft_wrap=True)
    out.print(f"Saved     {file} and {picture.name}", soft_wrap=True)
    if results.left:
        out.print(f"Left      {', '.join(results.left)}: the budget is used up; run it again to go on", style="yellow")
