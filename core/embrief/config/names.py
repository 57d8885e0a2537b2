"""What a name means where a person or a program gives it: a configured model, a reference, or the name itself.

What comes back from a store never gets here as anything but a recorded id, or an id on the hub at a commit; and neither
can be the name of a configured model.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from embrief.config import environment
from embrief.config.meaning import WHERE_IT_RUNS, KindOf, Meant, meaning_of
from embrief.config.process import current_config
from embrief.discovery.plugins import plugins
from embrief.errors import ArgumentError, ConfigError
from embrief.facts.specs import ModelSpec, RerankerSpec
from embrief.files import foreign
from embrief.runtimes.base import RuntimeOptions
from embrief.runtimes.built_in import RUNTIMES
from embrief.runtimes.engine_options import EngineOptions
from embrief.servers import asking
from embrief.servers.options import Ollama, OpenAI, RerankHttp, ServerOptions
from embrief.serving import references
from embrief.serving.choosing import named

if TYPE_CHECKING:
    from embrief.config.schema import Config

_DEFAULTS = {False: "Qwen/Qwen3-Embedding-0.6B", True: "Qwen/Qwen3-Reranker-0.6B"}


def default_name(kind: KindOf, config: Config | None = None) -> str:
    """Return the model where none is named: the environment's, the configuration's, or Qwen3's smallest.

    Args:
        kind: Whether an embedding model or a reranker is wanted.
        config: The configuration; `None`: this process's.

    Raises:
        ArgumentError: Two variables name one.
        UnknownModelError: A variable names a folder that is not there.
        ConfigError, MissingDependencyError: The configuration cannot be read.
    """
    return named_default(kind, config) or _DEFAULTS[kind is RerankerSpec]


def named_default(kind: KindOf, config: Config | None = None) -> str | None:
    """Return the model where none is named, as the environment or the configuration says; `None` if neither does.

    Args:
        kind: Whether an embedding model or a reranker is wanted.
        config: The configuration; `None`: this process's.

    Raises:
        ArgumentError, UnknownModelError, ConfigError, MissingDependencyError: As of `default_name`.
    """
    reranks = kind is RerankerSpec
    name = environment.RERANKER if reranks else environment.DEFAULT_MODEL
    path = environment.RERANKER_PATH if reranks else environment.MODEL_PATH
    named_one, folder = environment.read(name), environment.read(path)
    if named_one and folder:
        raise ArgumentError(f"{name}={named_one!r} and {path}={folder!r} both name the model; unset one of them")
    if folder:
        return references.expand(f"local:{folder}", kind).model
    if named_one:
        return named_one
    found = config if config is not None else current_config()
    return found.reranker if reranks else found.default_model


def meaning(name: str, kind: KindOf, config: Config | None = None) -> Meant:
    """Return what a name means.

    In this order: a recorded id, a configured name, a reference, and whatever else a model may be called.

    Args:
        name: What a user wrote.
        kind: Whether an embedding model or a reranker is wanted.
        config: The configuration; `None`: this process's, which is read only where the name could be in it.

    Raises:
        ArgumentError, UnknownModelError: A reference cannot be.
        ConfigError, MissingDependencyError: The configuration cannot be read, or the model in it cannot be used so.
        WrongKindError: It is configured as a model of the other kind.
        UnavailableError, UnauthorizedError: A server that is asked does not answer, or refuses the key.
    """
    if (recorded := _by_id(name)) is not None:
        return _where_it_runs(recorded, kind, config) or Meant(name)
    if "/" not in name and ":" not in name:
        entry = (config if config is not None else current_config()).models.get(name)
        if entry is not None:
            return meaning_of(entry, kind)
    elif references.is_reference(name):
        return _referred(name, kind, config)
    alias = plugins().catalog.find_model(name)
    return (alias is not None and _where_it_runs(alias, kind, config)) or Meant(name)


def _referred(name: str, kind: KindOf, config: Config | None) -> Meant:
    target = references.expand(name, kind)
    recorded = plugins().catalog.models.get(target.model)
    # `hf:` says which model it is, and not where it runs; but another commit is another model.
    if recorded is not None and target.backend is None and not target.in_process:
        elsewhere = _where_it_runs(recorded, kind, config) if target.revision in (None, recorded.revision) else None
        if elsewhere is not None:
            return elsewhere
    said = f"the reference {foreign.shown(name)}"
    return Meant(target.model, target.backend, target.revision, said_by=said, in_process=target.in_process, fixed=True)


def _by_id(name: str) -> ModelSpec | None:
    models = plugins().catalog.models
    if name in models:
        return models[name]
    return next((spec for known, spec in models.items() if known.lower() == name.lower()), None)


def _where_it_runs(spec: ModelSpec, kind: KindOf, config: Config | None) -> Meant | None:
    """Return a recorded model, where the configuration says that it runs: what moves its vectors stays the record's.

    Returns:
        `None` where the configuration does not say.
    """
    config = config if config is not None else current_config()
    entry = config.models.get(config.runs.get(spec.id, ""))
    if entry is None or not isinstance(spec, kind):
        return None
    # Of what an entry says of its runtime, this is a part of the vector space.
    settings = {name: value for name, value in entry.settings.items() if name not in EngineOptions.OF_THE_SPACE}
    found = meaning_of(replace(entry, settings=settings), kind)
    if found.model != spec.id:
        raise ConfigError(
            f"{config.file}: runs: says that {spec.id} runs as {entry.name!r}, and that is {found.model} "
            f"({entry.where}); correct model_id: there, or the line in runs:"
        )
    keywords = {key: value for key, value in found.keywords.items() if key in WHERE_IT_RUNS}
    return replace(found, revision=None, keywords=keywords, yields=True)


def runtime_here(meant: Meant, backend: str | RuntimeOptions | None, kind: KindOf) -> str | RuntimeOptions | None:
    """Return the runtime of a model, after what the environment says of servers.

    Args:
        meant: What the name means.
        backend: What was decided so far, by the call or the configuration.
        kind: Whether an embedding model or a reranker is wanted.

    Raises:
        ArgumentError: The environment wants a server, and the model is to run in this process, or no server is named.
        UnavailableError: The server that it names does not say what it is.
    """
    if isinstance(backend, str) and is_server(backend):
        # What a wrapper wrote down is a runtime's name alone: where it runs is for this machine to say.
        return _named_server(backend, kind) or backend
    if isinstance(backend, Ollama) and backend.base_url is None:
        # The one kind that is named without an address also by a reference.
        there = environment.server()
        return replace(backend, base_url=there.url) if there is not None and there.kind == "ollama" else backend
    if environment.native() is not False or is_server(backend):
        return backend
    if meant.in_process or backend in {runtime.name for runtime in RUNTIMES}:
        what = f"backend={backend!r}" if backend is not None else (meant.said_by or meant.model)
        raise ArgumentError(
            f"{environment.NATIVE}=0 lets models run on servers only, and {what} is in this process; unset the "
            "variable, or name a server"
        )
    if backend is not None:
        # A plugin's runtime that somebody named.
        return backend
    server = _server(kind)
    if server is None:
        raise ArgumentError(
            f"{environment.NATIVE}=0 lets models run on servers only, and none is named for {meant.model}; set "
            f"{environment.SERVER_URL}, such as tei+http://127.0.0.1:8080, or unset {environment.NATIVE}"
        )
    return server


def is_server(backend: str | RuntimeOptions | None) -> bool:
    """Return whether a runtime is one of the servers that embrief speaks to."""
    if isinstance(backend, str):
        runtime = plugins().catalog.backends.get(backend)
        return runtime is not None and issubclass(runtime.Options, ServerOptions)
    return isinstance(backend, ServerOptions)


def told(backend: str | RuntimeOptions | None) -> str:
    """Return a runtime for a message: its name, and the address of a server. Never all its options."""
    if not isinstance(backend, RuntimeOptions):
        return str(backend)
    name = named(plugins().catalog, backend).name
    return f"{name} at {backend.address.url}" if isinstance(backend, ServerOptions) else name


def _named_server(backend: str, kind: KindOf) -> ServerOptions | None:
    """Return the environment's server if it is one of this runtime's."""
    wanted = plugins().catalog.backends[backend].Options
    server = environment.server()
    if server is None or server.kind is None:
        return None
    found = _server(kind)
    return found if type(found) is wanted else None


def _server(kind: KindOf) -> ServerOptions | None:
    """Return the server that the environment names, asked once what it is where that is not said."""
    server = environment.server()
    if server is None:
        return None
    options = references.options_of(server.kind) if server.kind is not None else asking.server_kind(server.url)
    if options is OpenAI and kind is RerankerSpec:
        options = RerankHttp
    return options(base_url=server.url)


def check_allowed(model: str, backend: str | RuntimeOptions | None, *, leaves_machine: bool) -> None:
    """Refuse a server where the environment allows models in this process only.

    Args:
        model: The model's id.
        backend: Its runtime, as it was named.
        leaves_machine: Whether it says that texts leave this machine.

    Raises:
        ArgumentError: It does.
    """
    if (leaves_machine or is_server(backend)) and environment.native() is True:
        raise ArgumentError(
            f"{environment.NATIVE}=1 lets models run in this process only, and {model} would run on a server "
            f"({told(backend)}); unset the variable, or name a model without a server"
        )
