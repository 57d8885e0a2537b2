"""The tools for assistants over the server, at one path, behind its guards, keys and limits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mcp.server.transport_security import TransportSecuritySettings
from starlette.exceptions import HTTPException

from embrief.server.app import Mounted
from embrief.server.assistants import Scope, search_here
from embrief.server.tools import Abilities, Found, Wanted, make_server

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Send
    from starlette.types import Scope as HttpScope

    from embrief.indexing.workspace import Workspace
    from embrief.server.models import ServedModels

PATH = "/mcp"


def _posted(app: ASGIApp) -> ASGIApp:
    """Return an application that takes POST alone.

    A GET would open a stream for what the server sends by itself, which without sessions is nothing: it would stay
    open until the server ends. 405 is what the protocol has for that.
    """

    async def answer(scope: HttpScope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            raise HTTPException(405, headers={"allow": "POST"})
        await app(scope, receive, send)

    return answer


def mounted(workspace: Workspace, scope: Scope, models: ServedModels) -> Mounted:
    """Return the application for `create_app`. Each request stands for itself: no session is kept for it.

    Args:
        workspace: What is searched in.
        scope: Which collections may be seen.
        models: The first embedding model and the first reranker are those of the tools.
    """

    async def search(wanted: Wanted) -> Found:
        return await asyncio.to_thread(search_here, workspace, scope, wanted)

    embedders, rerankers = list(models.embedders.values()), list(models.rerankers.values())
    server = make_server(
        Abilities(
            search=search,
            collections=lambda: scope.of(workspace),
            embedder=(lambda: embedders[0].facade) if embedders else None,
            reranker=(lambda: rerankers[0].facade) if rerankers else None,
        )
    )
    app = server.streamable_http_app(
        streamable_http_path=PATH,
        stateless_http=True,
        json_response=True,
        # The guards of the server have looked at Host and Origin, and know the names that are allowed.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    return Mounted(
        PATH,
        _posted(app),
        lambda: server.session_manager.run(),
        exact=True,
        says=lambda address: f"tools for assistants (MCP) are at {address}{PATH}",
    )
