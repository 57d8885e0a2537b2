"""`embrief mcp`: search, embedding and reranking as tools of a coding assistant."""

from __future__ import annotations

from functools import cache
from typing import Annotated

import typer

from embrief.cli.naming import ConfigFile  # noqa: TC001 - typer reads it
from embrief.errors import MissingDependencyError
from embrief.system.installed import install_command, is_installed

NONE = "none"
IDLE_SECONDS = 60.0


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
    from embrief.cli.running import answering_others
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
    embedder = cache(lambda: Embedder(model or usual_embedding(), truncate="silent"))
    judge = cache(lambda: Reranker(reranker or usual_reranker(), truncate="silent"))
    # Not open for long: an assistant may run for days, and a shell with other variables is not answered by its process.
    with answering_others("mcp", IDLE_SECONDS) as answers:
        run_stdio(
            workspace,
            scope,
            embedder=None if model == NONE else embedder,
            reranker=None if reranker == NONE else judge,
            others_answer=not answers,
        )
