"""The page as an application that is mounted: its files, its routes, and the headers around both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import RedirectResponse, Response

from embrief.server.app import Mounted
from embrief.server.page.files import FILES, File
from embrief.server.page.routes import PATHS, router
from embrief.server.page.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from embrief.indexing.workspace import Workspace

PATH = "/ui"
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        # Pictures that were found are fetched with the key, and shown from the tab's own memory.
        "img-src 'self' blob:",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        # No script may make elements of a text, ours included.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Of every answer: nothing runs, loads or frames but what is served here, and nothing is kept."""


def page(workspace: Workspace, collections: Sequence[str] | None = None) -> list[Mounted]:
    """Return the page, to be mounted: what is below its path, and what leads there.

    Anybody who reaches the server gets the page itself, which is the same for all; answers need a key where the server
    has keys.

    Args:
        workspace: Whose collections it shows.
        collections: Only those of these names; `None`: all.

    Raises:
        ArgumentError: There is none of a name.
    """
    shelf = Shelf(workspace, None if collections is None else tuple(collections))
    shelf.check()
    routes = router(shelf)
    for path, file in FILES.items():
        routes.add_route(path, _served(file), methods=["GET"])
    return [
        Mounted(PATH, RedirectResponse(PATH + "/"), exact=True, keeps_to_keys=True),
        Mounted(
            PATH,
            _Guarded(routes),
            keeps_to_keys=True,
            timed=tuple(PATH + path for path in PATHS),
            open_to_all=(PATH, *(PATH + path for path in FILES)),
            says=lambda address: f"the page is at {address}{PATH}/ and shows {shelf.described()}",
        ),
    ]


def _served(file: File) -> Callable[[Request], Awaitable[Response]]:
    async def serve(_: Request) -> Response:
        return Response(file.data, media_type=file.kind)

    return serve


class _Guarded:
    """Puts the headers on everything that is answered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", ()), *own]
            await send(message)

        await self._app(scope, receive, sent)
