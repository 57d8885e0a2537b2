"""`embrief mcp`: search, embedding and reranking as tools of a coding assistant."""

from __future__ import annotations

from functools import cache
from typing import Annotated

import typer

from embrief.cli.naming import ConfigFile  # noqa: TC001 - typer reads it
from embrief.errors import MissingDependencyError
from embrief.system.installed import install_command, is_installed

NONE = "none"


def mcp(
    collection: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A collection that may be searched; several times. By default all of yours."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model of the tool `embed`, or none; by default as of `embrief index`.")
    ] = None,
    reranker: Annotated[
        str | None, typer.Option(help="The model of the tool `rerank`, or none; by default as of `embrief search`.")
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Offer search to a coding assistant, over MCP.

    Speaks MCP over standard input and output; an assistant starts it. `embrief serve --mcp` has the same tools over
    HTTP.
    """
    if not is_installed("mcp"):
        raise MissingDependencyError(f"this needs the package mcp: {install_command('mcp')}")
    # Inside the function: a command's help needs none of it.
    from embrief.cli.running import run_command, warn_each_time
    from embrief.config.offline import usual_embedding, usual_reranker
    from embrief.facades.embedder import Embedder
    from embrief.facades.reranker import Reranker
    from embrief.indexing.workspace import shared_workspace
    from embrief.server.assistants import Scope, run_stdio

    workspace = shared_workspace()
    scope = Scope(allowed=frozenset(collection) if collection else None)
    # A name that is not there is told at once, not to the assistant.
    for name in collection or ():
        scope.choose(workspace, name)
    warn_each_time()
    run_stdio(
        workspace,
        scope,
        embedder=None if model == NONE else cache(lambda: Embedder(model or usual_embedding(), truncate="silent")),
        reranker=None if reranker == NONE else cache(lambda: Reranker(reranker or usual_reranker(), truncate="silent")),
        run_command=run_command,
    )
