"""What a configured model is: which record, on which runtime, with which options."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embrief.cache.options import MemoryCache, SqliteCache
from embrief.config import environment
from embrief.config.providers import PROVIDERS, Provider
from embrief.config.schema import MODEL_SETTINGS, RUNTIME_OF, ModelEntry
from embrief.discovery.plugins import plugins
from embrief.errors import ArgumentError, ConfigError, EmbriefError, WrongKindError
from embrief.facts.specs import NO_PROMPT, EmbeddingPrompts, EmbeddingSpec, ModelSpec, RerankerSpec, Task
from embrief.files import foreign
from embrief.runtimes.engine_options import EngineOptions
from embrief.servers import asking
from embrief.servers.options import HfInference, HttpSimple, Ollama, OpenAI, RerankHttp, ServerOptions, Tei
from embrief.serving import references

if TYPE_CHECKING:
    from embrief.runtimes.base import RuntimeOptions

KindOf = type[EmbeddingSpec] | type[RerankerSpec]

DECLARED = "declared"
"""The architecture, and where no revision is given the version, of a model that a configuration describes."""
_UNKNOWN_LIMIT = 1_000_000
"""Tokens: the server alone knows what it takes."""
_KEYWORDS = (
    "dim", "max_tokens", "instruction", "task", "normalize", "truncate", "device", "dtype", "batch_tokens", "cache_dir",
    "local_files_only", "like", "max_pixels", "special_tokens",
)  # fmt: skip
"""Settings that are keywords of the facades."""
_OF_VECTORS = ("dim", "task", "normalize")
WHERE_IT_RUNS = ("cache", "device", "dtype", "batch_tokens", "cache_dir", "local_files_only")
"""Those of them that move no vector, but for rounding."""
_DECLARABLE = (OpenAI, HttpSimple)
_OF_KIND: Mapping[str, tuple[type[ServerOptions], ...]] = {
    "ollama": (Ollama,), "tei": (Tei,), "openai": (OpenAI, RerankHttp),
}  # fmt: skip
"""What the environment's word for a kind of server stands for."""


@dataclass(frozen=True, slots=True)
class Meant:
    """What a name means."""

    model: str
    backend: str | RuntimeOptions | None = None
    revision: str | None = None
    keywords: Mapping[str, Any] = field(default_factory=dict)
    """Keywords of the facade that the configuration gives; those of the call win."""
    declared: ModelSpec | None = None
    """The facts about a model that nothing is recorded of."""
    said_by: str = ""
    """What said so, for messages."""
    in_process: bool = False
    """Whether it was said that the model runs in this process."""
    fixed: bool = False
    """Whether a revision that the call names contradicts this one, instead of winning over it."""
    yields: bool = False
    """Whether a runtime that the call names wins over this one, instead of contradicting it."""


def meaning_of(entry: ModelEntry, kind: KindOf) -> Meant:
    """Return what a configured model is. Asks the network only where a server's address has no model beside it.

    Args:
        entry: What the configuration says.
        kind: Whether an embedding model or a reranker is wanted.

    Raises:
        ConfigError: It cannot be used as it stands; the message says what to change, and where.
        WrongKindError: It is a model of the other kind.
        UnavailableError, UnauthorizedError: A server that is asked does not answer, or refuses the key.
    """
    said = entry.settings.get("kind")
    if said is not None and (said == "reranker") != (kind is RerankerSpec):
        raise _wrong_kind(entry, said)
    wrong = [name for name in _OF_VECTORS if name in entry.settings]
    if entry.settings.get("cache"):
        wrong.append("cache")
    if kind is RerankerSpec and wrong:
        raise _error(entry, f"{wrong[0]}: is for embedding models, and does nothing for a reranker; remove it")
    provider, word = PROVIDERS.get(entry.provider), entry.provider
    if word == "local" and "base_url" in entry.settings:
        provider, word = PROVIDERS["http-simple"], "http-simple"
    if provider is None or provider.in_process:
        return _in_process(entry, provider, word, kind)
    return _on_server(entry, provider, word, kind)


def kind_of(entry: ModelEntry) -> KindOf:
    """Return whether a configured model embeds or reranks, as far as that is known without asking anybody."""
    if "kind" in entry.settings:
        return RerankerSpec if entry.settings["kind"] == "reranker" else EmbeddingSpec
    provider = PROVIDERS.get(entry.provider)
    if provider is not None and provider.embeds is None and provider.reranks is not None:
        return RerankerSpec
    spec = record_of(entry)
    return RerankerSpec if isinstance(spec, RerankerSpec) else EmbeddingSpec


def record_of(entry: ModelEntry) -> ModelSpec | None:
    """Return the record of a configured model, `None` if there is none or nobody knows."""
    name = entry.settings.get("model_id", entry.name)
    provider = PROVIDERS.get(entry.provider)
    try:
        if references.is_reference(name):
            name = name.partition("#")[2] or name.partition(":")[2].partition("@")[0]
        if entry.provider == "hash" or (
            entry.provider == "local" and not {"base_url", "model_id"} & set(entry.settings)
        ):
            return plugins().catalog.models.get("embrief/hash")
        kinds = () if provider is None else (provider.embeds, provider.reranks)
        found = [plugins().catalog.served(RUNTIME_OF[kind.__name__], name) for kind in kinds if kind is not None]
        return next((spec for spec in found if spec is not None), None) or plugins().catalog.find_model(name)
    except EmbriefError:
        # A known mistake: whoever uses the model is told so.
        return None


def _in_process(entry: ModelEntry, provider: Provider | None, word: str, kind: KindOf) -> Meant:
    settings = entry.settings
    # A plugin's runtime is a provider by its own name.
    backend = word if provider is None else provider.backend
    if word == "hash" or (word == "local" and "model_id" not in settings):
        model, backend = settings.get("model_id", "embrief/hash"), None
    elif "model_id" in settings:
        model = settings["model_id"]
    elif plugins().catalog.find_model(entry.name) is not None:
        model = entry.name
    else:
        raise _error(entry, "it does not say which model it is; add model_id: with a recorded name, an id or a folder")
    target = references.Target("")
    if references.is_reference(model):
        try:
            target = references.expand(_from_folder(model, entry), kind)
        except (ArgumentError, LookupError) as error:
            raise _error(entry, str(error)) from error
        if target.backend is not None and backend is not None:
            raise _error(entry, f"provider: {word} and model_id: {model} name two places to run it; leave one")
        model = target.model
    else:
        model = _local_model(model, entry)
    if target.revision and settings.get("revision", target.revision) != target.revision:
        raise _error(entry, f"revision: {settings['revision']} is not the one in model_id: {settings['model_id']}")
    return Meant(
        model,
        _with_options(entry, target.backend or backend, model),
        target.revision or settings.get("revision"),
        _keywords(entry),
        said_by=_said_by(entry),
        # Where a plugin's runtime runs is for it to say.
        in_process=target.backend is None and provider is not None,
    )


def _with_options(entry: ModelEntry, backend: str | RuntimeOptions | None, model: str) -> str | RuntimeOptions | None:
    """Return a runtime in this process with what the entry says of it."""
    form = entry.settings.get("picture_prompt")
    if form is None:
        return backend
    if backend not in (None, "engine"):
        raise _error(entry, f"picture_prompt: is for embrief's own engine, and {model} runs elsewhere; remove it")
    options, spec = EngineOptions(picture_prompt=form), plugins().catalog.find_model(model)
    if spec is not None:
        try:
            options.described(spec)
        except ArgumentError as error:
            raise _error(entry, str(error)) from error
    return options


def _local_model(model: str, entry: ModelEntry) -> str:
    """Return a recorded id, a folder's absolute path, or the name as it is: an id on the hub."""
    # Ids and not aliases: an alias may be a configured name as well, and would be looked up again.
    if (spec := plugins().catalog.find_model(model)) is not None:
        return spec.id
    folder = foreign.folder_of(_path(model, entry.folder))
    if folder is not None:
        return str(folder.absolute())
    if foreign.looks_like_path(model):
        problem = foreign.file_problem(_path(model, entry.folder))
        raise _error(entry, problem or f"there is no model folder {foreign.shown(model)}")
    if entry.folder and foreign.folder_of(model) is not None:
        raise _error(
            entry, f"{foreign.shown(model)} is a folder in the working directory, and paths here count from the file's "
            "folder; write the whole path"
        )  # fmt: skip
    return model


def _from_folder(reference: str, entry: ModelEntry) -> str:
    scheme, _, rest = reference.partition(":")
    if scheme.lower() not in ("local", "native", "gguf") or plugins().catalog.find_model(rest) is not None:
        return reference
    return f"{scheme}:{_path(rest, entry.folder)}"


def _path(path: str, folder: str) -> str:
    """Return a path, from the file's folder if it is relative."""
    return os.path.join(folder, str(Path(path).expanduser())) if folder else path  # noqa: PTH118 - keeps what is no path


def _on_server(entry: ModelEntry, provider: Provider, word: str, kind: KindOf) -> Meant:
    settings = entry.settings
    options = provider.reranks if kind is RerankerSpec else provider.embeds
    if options is None:
        raise _wrong_kind(entry, "embedding" if provider.embeds is not None else "reranker")
    runtime = RUNTIME_OF[options.__name__]
    _refuse_others(entry, word, runtime, kind)
    values = _option_values(entry, options)
    url = settings.get("base_url") or _default_url(entry, provider, word, options, kind)
    if url is not None:
        values["base_url"] = url
    try:
        if "model_id" not in settings and "served_as" not in settings and options is Tei and record_of(entry) is None:
            name = asking.served_model(options(**values))
        else:
            name = settings.get("model_id", entry.name)
        spec = references.recorded(runtime, name)
    except (ArgumentError, LookupError) as error:
        raise _error(entry, str(error)) from error
    declared: ModelSpec | None = None
    if "image_endpoint" in settings and (spec is None or spec.images is None):
        raise _error(
            entry,
            f"image_endpoint: is for models that take pictures, and {foreign.shown(name)} is not recorded as one; add "
            "model_id: with the name of one that is (`embrief models` lists them), or remove the line",
        )
    if spec is None:
        spec = declared = _declared(entry, options, kind, runtime)
        if "model_id" in settings:
            values.setdefault("model", settings["model_id"])
    elif name != spec.id and "model_id" in settings:
        hosted = provider.hosted and "base_url" not in settings
        by_alias = plugins().catalog.served(runtime, name) is None
        values.setdefault("model", spec.served_name(runtime) if hosted and by_alias else name)
    if not isinstance(spec, kind):
        raise _wrong_kind(entry, "reranker" if isinstance(spec, RerankerSpec) else "embedding")
    try:
        backend = options(**values)
    except EmbriefError as error:
        raise _error(entry, str(error)) from error
    keywords = _keywords(entry)
    if declared is not None:
        keywords = {key: value for key, value in keywords.items() if key not in ("dim", "max_tokens")}
    revision = None if declared is not None else settings.get("revision")
    return Meant(spec.id, backend, revision, keywords, declared, _said_by(entry))


def _refuse_others(entry: ModelEntry, word: str, runtime: str, kind: KindOf) -> None:
    """Refuse settings of the provider's other kind of models: the file's reader does not know which kind this is.

    Raises:
        ConfigError: There is one.
    """
    for name in entry.settings:
        belongs = MODEL_SETTINGS[name].of
        if belongs and "server" not in belongs and runtime not in belongs:
            what = "a reranker" if kind is RerankerSpec else "an embedding model"
            raise _error(entry, f"{name}: does nothing for {what} of the provider {word}; remove it")


def _option_values(entry: ModelEntry, options: type[ServerOptions]) -> dict[str, Any]:
    """Return what an entry says of its server, by the names of the options."""
    known = {item.name for item in fields(options)}
    # The entry's own provider is the kind of server, and not an option of one.
    found = {name: value for name, value in entry.settings.items() if name in known - {"provider"}}
    return found | ({"model": entry.settings["served_as"]} if "served_as" in entry.settings else {})


def _default_url(
    entry: ModelEntry, provider: Provider, word: str, options: type[ServerOptions], kind: KindOf
) -> str | None:
    """Return the address of a server whose address is not configured; `None` where its options know it."""
    # The environment wins over what is usual, as it does over the file.
    usual = provider.rerank_url if kind is RerankerSpec and provider.rerank_url else provider.base_url
    server = environment.server() if _may_be_anywhere(entry, provider, word) else None
    if server is not None and (server.kind is None or options in _OF_KIND[server.kind]):
        return server.url
    if usual is not None:
        return usual
    if options in (OpenAI, Ollama, HfInference):
        return None
    needs = f"provider: {word} needs base_url:, such as http://127.0.0.1:8080"
    if server is not None:
        raise _error(
            entry, f"{needs}; {environment.SERVER_URL} names a server of another kind, {server.kind}+{server.url}"
        )
    raise _error(entry, f"{needs} (or {environment.SERVER_URL})")


def _may_be_anywhere(entry: ModelEntry, provider: Provider, word: str) -> bool:
    """Return whether the environment may say where a server is: not where a company is meant by its name.

    Files have `openai` for OpenAI and for servers like it; what OpenAI alone has, it is asked for.
    """
    if not provider.hosted:
        return True
    record = record_of(entry)
    return word == "openai" and (record is None or record.hosted is None)


def _declared(entry: ModelEntry, options: type[ServerOptions], kind: KindOf, runtime: str) -> ModelSpec:
    """Return facts about a model that nothing is recorded of, as far as the configuration has them.

    Raises:
        ConfigError: It has too few, or other servers need a record.
    """
    name = entry.settings.get("model_id", entry.name)
    if options not in _DECLARABLE or kind is not EmbeddingSpec:
        raise _error(
            entry,
            f"nothing is recorded about {foreign.shown(name)}, so its prompts are not known; write model_id: with a "
            f"recorded name, and served_as: {name} for what the server calls it (`embrief models` lists the names)",
        )
    if "dim" not in entry.settings:
        raise _error(
            entry,
            f"nothing is recorded about {foreign.shown(name)}. If it is a recorded model, add the line model_id: with "
            "its name; else add the line dim: with the number of values that the server gives for a text",
        )
    return declared_spec(
        entry.name,
        dim=entry.settings["dim"],
        max_tokens=entry.settings.get("max_tokens"),
        revision=entry.settings.get("revision"),
        served_as=(runtime, entry.settings.get("served_as") or name),
    )


def declared_spec(
    name: str, *, dim: int, max_tokens: int | None, revision: str | None, served_as: tuple[str, str]
) -> EmbeddingSpec:
    """Return the facts about a model that only a server has and nothing is recorded of: no prompts, a space of its own.

    Args:
        name: What it is called, in its vectors' space too.
        dim: Values per vector.
        max_tokens: Tokens per text, where somebody knows.
        revision: A name for its version, which is part of the space.
        served_as: The runtime, and what its server calls the model.
    """
    limit = max_tokens or _UNKNOWN_LIMIT
    prompts = EmbeddingPrompts(tasks=(Task("retrieval", NO_PROMPT, NO_PROMPT, aliases=("query", "document")),))
    return EmbeddingSpec(
        id=name,
        revision=revision or DECLARED,
        license="",
        architecture=DECLARED,
        max_tokens=limit,
        context=limit,
        padding_side="right",
        dim=dim,
        pooling="none",
        prompts=prompts,
        final_token=None,
        served_names=(served_as,),
        source="the configuration",
    )


def _keywords(entry: ModelEntry) -> dict[str, Any]:
    found = {name: entry.settings[name] for name in _KEYWORDS if name in entry.settings}
    if entry.settings.get("cache"):
        kind = SqliteCache if entry.settings["cache"] == "sqlite" else MemoryCache
        ttl = entry.settings.get("cache_ttl")
        found["cache"] = kind() if ttl is None else kind(ttl=ttl)
    if "cache_dir" in found:
        found["cache_dir"] = _path(found["cache_dir"], entry.folder)
    return found


def _said_by(entry: ModelEntry) -> str:
    return f"{entry.name!r}, configured at {entry.where}" if entry.where else f"the configured {entry.name!r}"


def _error(entry: ModelEntry, problem: str) -> ConfigError:
    place = f"{entry.where}: " if entry.where else ""
    return ConfigError(f"{place}{entry.name}: {problem}")


def _wrong_kind(entry: ModelEntry, kind: str) -> WrongKindError:
    is_reranker = kind == "reranker"
    other, what = ("Reranker", "a reranker") if is_reranker else ("Embedder", "an embedding model")
    return WrongKindError(f"{_said_by(entry)} is {what}", use=f"{other}({entry.name!r})")
