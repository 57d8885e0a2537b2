"""`embrief serve`: models over HTTP."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from embrief.cli.completion import model_names
from embrief.cli.naming import ConfigFile  # noqa: TC001 - typer reads it
from embrief.cli.paths import expanded
from embrief.errors import ArgumentError, MissingDependencyError
from embrief.server.settings import HOST, LIMITS, PORT, Limits
from embrief.system.installed import install_command, is_installed

if TYPE_CHECKING:
    from embrief.server.app import Mounted
    from embrief.server.models import ServedModels

_Role = Literal["document", "query", "plain"]


def _with_limits(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each limit of the table; it gets them together, as `limits`."""

    @wraps(command)
    def run(**given: Any) -> None:
        limits = Limits(**{limit.name: given.pop(limit.name) for limit in LIMITS})
        command(**given, limits=limits)

    signature = inspect.signature(command, eval_str=True)
    own = [item for item in signature.parameters.values() if item.name != "limits"]
    options = [
        inspect.Parameter(
            limit.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=limit.default,
            annotation=Annotated[int, typer.Option(limit.option, min=limit.least, help=limit.help, metavar="N")],
        )
        for limit in LIMITS
    ]
    keywords = [item.replace(kind=inspect.Parameter.KEYWORD_ONLY) for item in own]
    run.__signature__ = signature.replace(parameters=[*keywords, *options])  # type: ignore[attr-defined]
    run.__annotations__ = {item.name: item.annotation for item in [*keywords, *options]}
    del run.__wrapped__  # whoever looks at it would find the options of the command itself
    return run


@_with_limits
def serve(
    limits: Limits,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...",
            autocompletion=model_names,
            help="Models by name, folder or reference, perhaps as NAME=MODEL. Without any: all of the configuration.",
        ),
    ] = None,
    reranker: Annotated[
        list[str] | None, typer.Option(metavar="MODEL", help="A reranker, the same way. May be given several times.")
    ] = None,
    config: ConfigFile = None,
    host: Annotated[str, typer.Option(help="The address to listen at.")] = HOST,
    port: Annotated[int, typer.Option(help="The port; 0 takes a free one.")] = PORT,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A further name that the server may be called by. May be given several times."
        ),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(
            callback=expanded,
            metavar="FILE",
            help="Keys of callers, one a line, KEY or NAME:KEY. Else those of the variable EMBRIEF_API_KEYS count.",
        ),
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Let other machines in without a key.")] = False,
    default_role: Annotated[
        _Role, typer.Option(help="What texts are whose request does not say it; plain: they have their prompts.")
    ] = "document",
    lazy: Annotated[bool, typer.Option("--lazy", help="Load models with the first request, not at the start.")] = False,
    ui: Annotated[
        bool, typer.Option("--ui", help="Also serve a page that shows why a text ranks where it does, at /ui/.")
    ] = False,
    collection: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="With --ui and --mcp: a collection that may be seen; several times. By default all of this user's.",
        ),
    ] = None,
    mcp: Annotated[
        bool, typer.Option("--mcp", help="Also offer search to assistants that speak MCP over HTTP, at /mcp.")
    ] = False,
) -> None:
    """Serve models over HTTP.

    To clients of OpenAI, TEI, Cohere, Jina and Ollama, and to scripts. A line tells where; SIGTERM or Ctrl-C ends it.
    `embrief search` in this user's terminals is answered by this process, with what it has open.
    """
    _check_installed(("fastapi", "uvicorn", "prometheus_client", *(["mcp"] if mcp else [])))
    # Inside the function: a command's help needs no server.
    from embrief.cli.running import answering_others
    from embrief.config.process import current_config
    from embrief.registry import Registry
    from embrief.server.keys import keys_of
    from embrief.server.models import served_models
    from embrief.server.run import Settings, check
    from embrief.server.run import serve as run

    settings = Settings(
        host=host,
        port=port,
        allowed_hosts=allow_host or (),
        keys=keys_of(key_file),
        insecure=insecure,
        limits=limits,
        default_role=default_role,
        lazy=lazy,
    )
    check(settings)
    registry = Registry(current_config())
    if collection and not (ui or mcp):
        raise ArgumentError("--collection says what the page and assistants see; it needs --ui or --mcp")
    if ui and not models and not reranker and not registry.list():
        models, reranker = _usual_models()
    served = served_models(models or (), reranker or (), registry)
    mounted = [*(_page(collection) if ui else ()), *(_tools(collection, served) if mcp else ())]
    with answering_others("serve"):
        run(
            served,
            replace(settings, mounted=mounted),
            told=lambda line: typer.echo(line, err=True),
            own=registry.close,
        )


def _page(collections: list[str] | None) -> list[Mounted]:
    from embrief.indexing.workspace import shared_workspace
    from embrief.server.page.app import page

    return page(shared_workspace(), collections)


def _tools(collections: list[str] | None, served: ServedModels) -> list[Mounted]:
    from embrief.indexing.workspace import shared_workspace
    from embrief.server.assistants import Scope
    from embrief.server.mcp_http import mounted

    workspace, scope = shared_workspace(), Scope(allowed=frozenset(collections) if collections else None)
    for name in collections or ():
        scope.choose(workspace, name)
    return [mounted(workspace, scope, served)]


def _usual_models() -> tuple[list[str], list[str]]:
    """Return an embedding model and a reranker for whoever only wants to look."""
    from embrief.config.offline import usual_embedding, usual_reranker

    try:
        return [usual_embedding()], [usual_reranker()]
    except MissingDependencyError:
        return [usual_embedding()], []


def _check_installed(names: Sequence[str]) -> None:
    for name in names:
        if not is_installed(name):
            extra = "server,mcp" if name == "mcp" else "server"
            raise MissingDependencyError(f"a server needs {name}: {install_command(extra)}")
