"""`embrief cache`: what the file of embeddings holds, emptying it, checking it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from embrief.cli.output import plain, print_json, size
from embrief.cli.paths import expanded

app = typer.Typer(help="Look after the file of cached embeddings.", no_args_is_help=True)

_Path = Annotated[
    Path | None,
    typer.Option("--path", callback=expanded, help="The cache's file, if it is not the one in your cache folder."),
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def stats(path: _Path = None, as_json: _Json = False) -> None:
    """Show what the cache holds."""
    from embrief.cache import upkeep

    found = upkeep.stats(_text(path))
    if as_json:
        print_json(found.to_json())
        return
    print(plain(found.path))
    expired = f", {found.expired:,} of them expired" if found.expired else ""
    print(f"{found.entries:,} vectors{expired}; {size(found.bytes)} in use, {size(found.file_bytes)} on disk")
    if found.oldest_use is not None:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(found.oldest_use))
        print(f"the one that goes first was used last on {used}")


@app.command()
def clear(path: _Path = None, as_json: _Json = False) -> None:
    """Remove all vectors from the cache. Programs that use it go on."""
    from embrief.cache import upkeep

    removed = upkeep.clear(_text(path))
    if as_json:
        print_json({"removed": removed})
    else:
        print(f"{removed:,} vectors removed")


@app.command()
def verify(path: _Path = None, as_json: _Json = False) -> None:
    """Check every vector against its checksum, and remove the damaged ones.

    Ends with 1 if there were any, or if the file itself is damaged.
    """
    from embrief.cache import upkeep

    found = upkeep.verify(_text(path))
    if as_json:
        print_json(found.to_json())
    else:
        print(f"{found.checked:,} vectors checked, {found.bad:,} damaged and removed")
        if found.damage:
            print(f"the file is damaged: {plain(found.damage)}; delete {plain(found.path)}")
    if found.bad or found.damage:
        raise typer.Exit(1)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
