"""The tools for assistants over the server, at one path, behind its guards, keys and limits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mcp.server.transport_security import TransportSecuritySettings

from embrief.server.app import Mounted
from embrief.server.assistants import Scope, search_here
from embrief.server.tools import Abilities, Found, Wanted, make_server

if TYPE_CHECKING:
    from embrief.indexing.workspace import Workspace
    from embrief.server.models import ServedModels

PATH = "/mcp"


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
        app,
        lambda: server.session_manager.run(),
        exact=True,
        says=lambda address: f"tools for assistants (MCP) are at {address}{PATH}",
    )
