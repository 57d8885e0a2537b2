"""References: a name that also says where a model is, such as `tei:http://127.0.0.1:8080#BAAI/bge-m3`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embrief.discovery.plugins import plugins
from embrief.errors import ArgumentError, UnknownModelError
from embrief.facts.specs import ModelSpec, RerankerSpec
from embrief.files import foreign
from embrief.files.forms import local_model
from embrief.files.gguf import GgufFile
from embrief.runtimes.gguf import Gguf
from embrief.servers import asking
from embrief.servers.options import Ollama, OpenAI, RerankHttp, ServerOptions, Tei

if TYPE_CHECKING:
    from embrief.facts.specs import EmbeddingSpec
    from embrief.runtimes.base import RuntimeOptions

_SERVERS: dict[str, type[ServerOptions]] = {"ollama": Ollama, "tei": Tei, "openai": OpenAI}
_SCHEME = re.compile(r"(hf|local|native|gguf|ollama|tei|openai)(?:(:)|\+(https?://))", re.IGNORECASE)
_URL = re.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Target:
    """What a reference means: plain values, from which the same model is found again."""

    model: str
    """A recorded id, an id on the hub, or a folder's absolute path."""
    backend: RuntimeOptions | None = None
    revision: str | None = None
    in_process: bool = False
    """Whether the reference says that the model runs in this process."""


def options_of(scheme: str) -> type[ServerOptions]:
    """Return the options of the servers that a scheme means: `"ollama"`, `"tei"` or `"openai"`."""
    return _SERVERS[scheme]


def is_reference(name: str) -> bool:
    """Return whether a name says where its model is."""
    found = _SCHEME.match(name)
    # `hf://owner/name` is an address of another library's.
    return found is not None and not (found[1].lower() == "hf" and (found[3] or name[found.end() :].startswith("/")))


def expand(name: str, kind: type[EmbeddingSpec] | type[RerankerSpec]) -> Target:
    """Return what a reference means.

    Asks the network only where an address comes without a model: then the server is asked once which one it serves.

    Args:
        name: What a user wrote; `is_reference` is true of it.
        kind: Whether an embedding model or a reranker is wanted.

    Raises:
        ArgumentError: A part is missing or cannot be.
        UnknownModelError: There is no such folder, or no record of what the server calls so.
        UnavailableError, UnauthorizedError: A server that is asked does not answer, or refuses the key.
    """
    found = _SCHEME.match(name)
    assert found is not None
    scheme, rest = found[1].lower(), name[found.end() :]
    if scheme == "hf":
        return _on_the_hub(name, rest)
    if scheme in ("local", "native"):
        if found[3]:
            raise ArgumentError(f"{foreign.shown(name)} is no reference: {scheme}: is followed by a folder or a name")
        return _here(name, rest)
    if scheme == "gguf":
        return _gguf(name, rest)
    if found[3]:
        url, _, model = f"{found[3]}{rest}".partition("#")
        return on_server(scheme, url, model, kind)
    if _URL.match(rest):
        if scheme == "ollama":
            raise ArgumentError(f"{foreign.shown(name)}: write Ollama's address as ollama+http://host:port#NAME")
        url, _, model = rest.partition("#")
        return on_server(scheme, url, model, kind)
    if scheme == "tei":
        raise ArgumentError(
            f"{foreign.shown(name)} is no reference; write tei:http://host:port, with #MODEL or without"
        )
    if not rest.strip():
        raise ArgumentError(f"{foreign.shown(name)} names no model; write it behind {scheme}:")
    return on_server(scheme, None, rest, kind)


def on_server(scheme: str, url: str | None, model: str, kind: type[EmbeddingSpec] | type[RerankerSpec]) -> Target:
    """Return a model on a server.

    Args:
        scheme: `"ollama"`, `"tei"` or `"openai"`.
        url: Where the server is; `None`: where it usually is.
        model: What the server calls the model; empty: it is asked.
        kind: What is wanted. Rerankers of servers like OpenAI's have a route of their own.

    Raises:
        ArgumentError, UnknownModelError, UnavailableError, UnauthorizedError: As of `expand`.
    """
    options = _SERVERS[scheme]
    if kind is RerankerSpec and options is OpenAI:
        if url is None:
            raise ArgumentError(f"OpenAI has no rerankers, so Reranker('openai:{model}') cannot be")
        options = RerankHttp
    called = model or asking.served_model(options(base_url=url))
    spec = recorded(scheme, called)
    if spec is None:
        near = plugins().catalog.near_names(called)
        hint = f" (perhaps {' or '.join(map(repr, near))})" if near else ""
        server = f"{options.__name__}({f'base_url={url!r}, ' if url else ''}model={called!r})"
        raise UnknownModelError(
            f"nothing is recorded about a model that a server calls {foreign.shown(called)}, so its prompts are not "
            f'known; say which model it is{hint}: Embedder("<recorded id>", backend={server})'
        )
    # What the user typed, a tag included, is asked for; but Ollama and OpenAI know models by names of their own.
    own = (url is not None and scheme != "ollama") or plugins().catalog.served(scheme, called) is not None
    return Target(spec.id, options(base_url=url, model=called if own else spec.served_name(scheme)))


def recorded(runtime: str, name: str) -> ModelSpec | None:
    """Return the record of what a runtime's servers call so, `None` if there is none.

    Raises:
        UnknownModelError: The name is a known mistake.
    """
    catalog = plugins().catalog
    return catalog.served(runtime, name) or catalog.find_model(name)


def _on_the_hub(name: str, rest: str) -> Target:
    model, mark, revision = rest.partition("@")
    if not foreign.is_hub_id(model) or (mark and not revision):
        raise ArgumentError(f"{foreign.shown(name)} is no reference; write hf:owner/name, or hf:owner/name@COMMIT")
    spec = plugins().catalog.find_model(model)
    if spec is None and foreign.folder_of(model) is not None:
        raise ArgumentError(
            f"{foreign.shown(name)} means the hub, and the working directory has a folder {model!r}, which goes first; "
            f"run the program elsewhere, or rename the folder (local:{model} means it)"
        )
    return Target(spec.id if spec is not None else model, revision=revision or None)


def _here(name: str, rest: str) -> Target:
    if not rest.strip():
        raise ArgumentError(f"{foreign.shown(name)} names no folder; write local:PATH")
    spec = plugins().catalog.find_model(rest)
    if spec is not None:
        return Target(spec.id, in_process=True)
    folder = foreign.folder_of(rest)
    if folder is None:
        raise UnknownModelError(
            foreign.file_problem(rest)
            or f"there is no model folder {foreign.shown(rest)}, which {scheme_of(name)}: means"
        )
    return Target(str(folder.absolute()), in_process=True)


def _gguf(name: str, rest: str) -> Target:
    if not rest.strip() or _URL.match(rest):
        raise ArgumentError(f"{foreign.shown(name)} names no model; write gguf:FILE, gguf:FOLDER or gguf:NAME")
    spec = plugins().catalog.find_model(rest)
    if spec is not None:
        return Target(spec.id, Gguf())
    path = foreign.folder_of(rest)
    if path is None:
        raise UnknownModelError(f"there is no GGUF file or folder {foreign.shown(rest)}, which gguf: means")
    if not isinstance(local_model(path), GgufFile):
        raise UnknownModelError(
            f"the folder {foreign.shown(rest)} has no GGUF files, or has safetensors beside them; name one of its files"
        )
    return Target(str(path.absolute()), in_process=True)


def scheme_of(name: str) -> str:
    """Return the part before the first colon."""
    return name.partition(":")[0]
