"""`embrief mcp`: the tools over standard input and output, for an assistant that starts this as its own process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from embrief.errors import ArgumentError, BackendError
from embrief.indexing.workspace import USUAL
from embrief.server.tools import Abilities, Found, Wanted, found_in, make_server

if TYPE_CHECKING:
    from embrief.facades.embedder import Embedder
    from embrief.facades.reranker import Reranker
    from embrief.indexing.table import CollectionInfo
    from embrief.indexing.workspace import Workspace

NOTHING, FAILED = 1, 2
"""Exit codes of `embrief search`."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Which collections somebody may see, and where they are."""

    allowed: frozenset[str] | None = None
    """Names; `None`: all of the user's."""
    cwd: Path = field(default_factory=Path.cwd)

    def of(self, workspace: Workspace) -> list[CollectionInfo]:
        """Return the collections."""
        return [info for info in workspace.collections() if self.allowed is None or info.name in self.allowed]

    def choose(self, workspace: Workspace, name: str | None) -> CollectionInfo:
        """Return the collection that is meant. One that may not be seen is as good as none.

        Raises:
            ArgumentError: There is none, or it could be several.
        """
        found = self.of(workspace)
        if name is None and len(found) == 1:
            return found[0]
        if name is None and self.allowed is None:
            return workspace.choose(None, cwd=self.cwd)
        named = [info for info in found if info.name == name]
        if len(named) == 1:
            return named[0]
        if named:
            told = f"{len(named)} collections are called {name!r}, and nothing here tells them apart"
            raise ArgumentError(f"{told}; index one of them under another name")
        names = ", ".join(info.name for info in found) or "none; `embrief index FOLDER` makes one"
        problem = "name a collection" if name is None else f"there is no collection {name[:80]!r}"
        raise ArgumentError(f"{problem}; there is: {names}")


def search_here(workspace: Workspace, scope: Scope, wanted: Wanted) -> Found:
    """Search with what this process has open.

    Raises:
        EmbriefError: As of `Workspace.search`.
    """
    info = scope.choose(workspace, wanted.collection)
    hits = workspace.search(
        wanted.question,
        info.name,
        to=info.to,
        store=info.store,
        top_k=wanted.top_k,
        rerank=USUAL if wanted.rerank else None,
        filetypes=wanted.filetypes,
        instruction=wanted.instruction,
    )
    return found_in(info.name, [hit.to_json() for hit in hits])


def search_there(workspace: Workspace, scope: Scope, wanted: Wanted) -> Found | None:
    """Search through the user's process that has the collections open; `None`: there is none.

    Raises:
        BackendError: It could not.
    """
    from embrief.local.client import collect

    info = scope.choose(workspace, wanted.collection)
    words = ["search", "--json", "--collection", info.name, "--to", info.to, "--store", info.store]
    words += ["--top-k", str(wanted.top_k), *["--rerank"] * wanted.rerank]
    words += [word for kind in wanted.filetypes for word in ("--filetype", kind)]
    if wanted.instruction is not None:
        words += ["--instruction", wanted.instruction]
    # Behind the dashes: a question may begin with one.
    answer = collect([*words, "--", wanted.question], str(scope.cwd))
    if answer is None:
        return None
    if answer.code not in (0, NOTHING):
        raise BackendError(answer.err.strip().removeprefix("error: ") or "the user's own process could not search")
    return found_in(info.name, json.loads(answer.out)["hits"])


def run_stdio(
    workspace: Workspace,
    scope: Scope,
    *,
    embedder: Callable[[], Embedder] | None,
    reranker: Callable[[], Reranker] | None,
    others_answer: bool,
) -> None:
    """Serve one assistant until it closes the pipe.

    Args:
        workspace: What is open in this process.
        scope: What may be seen.
        embedder: Makes the model of `embed`; `None`: no such tool.
        reranker: Makes the model of `rerank`; `None`: no such tool.
        others_answer: Whether another process of the user's may have collections open, through which searches go then.
    """

    def search(wanted: Wanted) -> Found:
        # Asked each time: the other may have ended by now, and closed what it had open.
        there = search_there(workspace, scope, wanted) if others_answer else None
        return search_here(workspace, scope, wanted) if there is None else there

    async def asked(wanted: Wanted) -> Found:
        return await asyncio.to_thread(search, wanted)

    abilities = Abilities(search=asked, collections=lambda: scope.of(workspace), embedder=embedder, reranker=reranker)
    make_server(abilities).run("stdio")
