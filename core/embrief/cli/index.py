"""`embrief index`: the files of a folder into a collection, and what changed since."""

from __future__ import annotations

import time
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embrief.cli.lines import Status, line, print_json, styled
from embrief.cli.naming import ConfigFile, InBackground, MaxPixels  # noqa: TC001 - typer reads them
from embrief.cli.paths import all_expanded, expanded
from embrief.cli.terminal import terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embrief.indexing.report import Progress, Update
    from embrief.indexing.table import CollectionInfo

_SHOWN = 20
"""Files that are listed with what went wrong; the rest is counted."""
_STATUS_SECONDS = 0.1
STOPPED = 130
"""Exit code of a command that Ctrl-C ended: 128 and the number of SIGINT, as shells have it."""


def index(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(callback=all_expanded, metavar="[PATH]...", help="Folders and files; by default this folder."),
    ] = None,
    repo: Annotated[
        Path | None, typer.Option(callback=expanded, metavar="PATH", help="A folder: the same as PATH.")
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="chroma or qdrant; by default the one it is in, or the first that is installed.")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="DIR|URL", help="Where the store is; by default a folder among the user's data."),
    ] = None,
    collection: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its name; by default one made of the folder's.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The embedding model; by default the collection's, or the configured one.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Files to take at most.")] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Take only what matches, as in a .gitignore file; several times."),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Leave out what matches; may be given several times.")
    ] = None,
    pages: Annotated[
        bool | None,
        typer.Option(
            "--pages/--no-pages",
            help="Take each page of a PDF as a picture, in the place of its text; by default as last time.",
        ),
    ] = None,
    max_pixels: MaxPixels = None,
    daemon: InBackground = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on, and keep it current until Ctrl-C.")] = False,
    config: ConfigFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; with --watch, a line per update.")] = False,
) -> None:
    """Index files for `embrief search`.

    Text, Markdown, code, HTML and PDF below a folder, as far as git would keep them, are cut into passages, embedded
    and stored. With a model that takes pictures, picture files are indexed too, each as one passage. A second run does
    only what is new or changed, and removes what is gone; a run that was interrupted goes on where it stopped.

    Exit code: 0; 1 if nothing could be indexed or an error ended it; 130 after Ctrl-C.
    """
    # Inside the function: a command's help needs nothing of it.
    from embrief.cli.running import answering_others
    from embrief.indexing.workspace import roots_of, shared_workspace

    here, workspace = terminal(), shared_workspace()
    given = [*(paths or ()), *([repo] if repo is not None else ())]
    where: dict[str, Any] = {
        "cwd": here.cwd,
        "to": to,
        "store": store,
        "model": model,
        "pages": pages,
        "max_pixels": max_pixels,
    }
    info = workspace.target(given, collection, **where)
    patterns: dict[str, Any] = {"include": include or (), "exclude": exclude or (), "limit": limit}
    if not as_json:
        _print_head(info)
    try:
        done = _update(info, given, collection, where, patterns)
        _print(done, info, as_json, compact=watch)
        if watch and not done.stopped:
            roots = roots_of(given, here.cwd)
            # It has the collection open, so it answers for it.
            with answering_others("index --watch"):
                _watch(info, roots, given, collection, where, patterns, as_json)
    except KeyboardInterrupt:
        line(styled("Stopped. The next run goes on from here.", "yellow"), error=True)
        raise typer.Exit(STOPPED) from None
    if not watch and not done.passages and not done.stopped:
        if not as_json:
            line(styled("Nothing could be indexed.", "yellow"), error=True)
        raise typer.Exit(1)


def _update(
    info: CollectionInfo,
    given: list[Path],
    collection: str | None,
    where: dict[str, Any],
    patterns: dict[str, Any],
    changed: Any = None,
) -> Update:
    from embrief.indexing.workspace import shared_workspace

    status = Status()
    last = 0.0

    def show(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= _STATUS_SECONDS:
            last = time.monotonic()
            status.show(f"Indexing  {progress.files:,} of {progress.of:,} files, {progress.passages:,} passages")

    status.show(f"Indexing  with {info.model}")
    try:
        return shared_workspace().update(
            given, collection, **where, **patterns, changed=changed, on_progress=show, stop=terminal().stop
        )
    finally:
        status.clear()


def _watch(
    info: CollectionInfo,
    roots: list[Path],
    given: list[Path],
    collection: str | None,
    where: dict[str, Any],
    patterns: dict[str, Any],
    as_json: bool,
) -> None:
    from embrief.indexing.table import usual_folder
    from embrief.indexing.watching import watch

    if not as_json:
        line(styled("Watching  until Ctrl-C", "dim"))
    updates: Iterator[Update] = watch(
        roots,
        lambda changed: _update(info, given, collection, where, patterns, changed),
        stop=terminal().stop,
        leave=[folder for folder in (info.place.folder, usual_folder().resolve()) if folder is not None],
        on_trouble=lambda message: line(styled(message, "yellow"), error=True),
    )
    for done in updates:
        _print(done, info, as_json, compact=True)


def _print_head(info: CollectionInfo) -> None:
    line("Collection  ", styled(info.name, "bold"), styled(f" ({info.store}, {info.to})", ""))
    line("Model       ", styled(info.model, ""))


def _print(done: Update, info: CollectionInfo, as_json: bool, *, compact: bool) -> None:
    if as_json:
        _print_json(done, info, compact)
        return
    counts = {"new": done.added, "changed": done.changed, "removed": done.removed, "as they were": done.unchanged}
    files = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "none"
    if compact:
        clock = time.strftime("%H:%M:%S")
        line(styled(f"{clock}    Files {files}; {done.embedded:,} passages embedded, {done.passages:,} in all", ""))
    else:
        line(styled(f"Files       {files}", ""))
        line(styled(f"Passages    {done.embedded:,} embedded in {done.seconds:.1f} s, {done.passages:,} in all", ""))
        if done.left_out:
            left = ", ".join(f"{count:,} {why}" for why, count in done.left_out.most_common())
            line(styled(f"Left out    {left}", "dim"))
        if done.estimated:
            line(styled("            the model's tokens cannot be counted here; lengths are estimated", "dim"))
    if done.failed:
        count = len(done.failed)
        line(styled(f"Failed      {count:,} file{'' if count == 1 else 's'}", "yellow"), error=True)
        for failure in done.failed[:_SHOWN]:
            line(styled(f"  {failure.path}: {failure.reason}", "yellow"), error=True)
        if (more := len(done.failed) - _SHOWN) > 0:
            line(styled(f"  and {more:,} more (--json lists them)", "yellow"), error=True)
    if done.stopped:
        line(styled("Stopped. The next run goes on from here.", "yellow"), error=True)


def _print_json(done: Update, info: CollectionInfo, compact: bool) -> None:
    data = {
        "collection": info.name,
        "store": info.store,
        "to": info.to,
        "model": info.model,
        "files": done.files,
        "added": done.added,
        "changed": done.changed,
        "removed": done.removed,
        "unchanged": done.unchanged,
        "embedded": done.embedded,
        "passages": done.passages,
        "failed": [{"file": str(failure.path), "reason": failure.reason} for failure in done.failed],
        "left_out": dict(done.left_out),
        "stopped": done.stopped,
        "seconds": round(done.seconds, 3),
    }
    print_json(data, compact=compact)
