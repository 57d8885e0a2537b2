"""What a configuration may say: one table of settings, and the values that a file gives them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal, TypeVar, cast, get_args

from embrief.config.aliases import FILE_ALIASES, MODEL_ALIASES, Alias
from embrief.config.providers import PROVIDERS, provider_name
from embrief.config.tree import Listing, Node, Place, Problems, Scalar, Table, where
from embrief.discovery.plugins import plugins
from embrief.facts.specs import SpecialTokens, Truncate
from embrief.runtimes.engine_options import PicturePrompt
from embrief.servers.keys import PROVIDER_KEYS
from embrief.serving import references

Kind = Literal["text", "sentence", "name", "count", "number", "seconds", "flag", "endpoint", "cache"]
ModelKind = Literal["embedding", "reranker"]
T = TypeVar("T")

VERSION = 1
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a configured model may be called: nothing that could be an id on the hub, a reference or a path."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:_API_KEY|_TOKEN|_KEY)")
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?")
_UNITS = (86400.0, 3600.0, 60.0, 1.0, 0.001)
_LONGEST_SHOWN = 60
_SECRET = re.compile(r"key|token|secret|password|passwd|credential|auth|bearer", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a model."""

    name: str
    kind: Kind
    means: str
    """For the documentation."""
    of: tuple[str, ...] = ()
    """What it belongs to: `"process"`, `"server"`, or names of runtimes; empty: everything."""
    choices: tuple[str, ...] = ()


_PROCESS, _SERVER = ("process",), ("server",)

MODEL_SETTINGS: Mapping[str, Setting] = {
    item.name: item
    for item in (
        Setting("provider", "text", "Where the model runs; the table of providers has the words"),
        Setting("model_id", "text", "A recorded name, an id on the hub, a folder, or what the server calls the model"),
        Setting("kind", "text", "What the model is, where nothing is recorded of it", (), ("embedding", "reranker")),
        Setting("revision", "text", "Commit on the hub; of a model that is not recorded, a name for its version"),
        Setting("dim", "count", "Values per vector. Of a model that is not recorded, all that it gives"),
        Setting("max_tokens", "count", "Tokens per text"),
        Setting("instruction", "sentence", 'What queries are for, in a sentence; `""`: no prompt at all'),
        Setting("task", "text", "What texts are for, by a name the model knows"),
        Setting("normalize", "flag", "Whether vectors get unit length"),
        Setting("truncate", "text", "What to do with a longer text", (), get_args(Truncate)),
        Setting("max_pixels", "count", "Largest area in which the model sees a picture, height times width"),
        Setting(
            "special_tokens",
            "text",
            "How the names of special tokens in a text are read: as those tokens, or as letters",
            (),
            get_args(SpecialTokens),
        ),
        Setting("cache", "cache", "Whether vectors are kept: `true` or `memory`, `sqlite`, or `false`"),
        Setting("cache_ttl", "seconds", "How long they are kept"),
        Setting("device", "text", "`auto`, `cpu`, `cuda`, `cuda:N` or `mps`", _PROCESS),
        Setting("dtype", "text", "Number format", _PROCESS),
        Setting("batch_tokens", "count", "Tokens per batch, padding included", _PROCESS),
        Setting("cache_dir", "text", "Where downloads are kept", _PROCESS),
        Setting("local_files_only", "flag", "Never ask the network", _PROCESS),
        Setting("like", "text", "For a model without a record: the record to take prompts and limits from", _PROCESS),
        Setting(
            "picture_prompt",
            "text",
            "Where the prompt of an input with pictures stands, of a model whose authors leave that open",
            ("engine",),
            get_args(PicturePrompt),
        ),
        Setting("base_url", "text", "Address of the server", _SERVER),
        Setting(
            "served_as", "text", "What the server calls the model, where `model_id` says which model it is", _SERVER
        ),
        Setting("api_key_env", "name", "Name of the variable that holds the key", _SERVER),
        Setting("api_key_file", "text", "A file that holds the key", _SERVER),
        Setting("timeout", "seconds", "For one answer", _SERVER),
        Setting("connect_timeout", "seconds", "To reach the server", _SERVER),
        Setting("deadline", "seconds", "For a whole call with all its requests", _SERVER),
        Setting("tries", "count", "How often a request is made", _SERVER),
        Setting("in_flight", "count", "Requests at once", _SERVER),
        Setting("batch_rows", "count", "Texts in one request", _SERVER),
        Setting("requests_per_minute", "count", "Kept before the server complains", _SERVER),
        Setting("tokens_per_minute", "count", "Kept before the server complains", _SERVER),
        Setting("tokenizer", "text", "tokenizer.json, or its folder, to count and cut texts with", _SERVER),
        Setting(
            "text_endpoint", "endpoint", "Path behind `base_url`; also written as `{path: /encode}`", ("http-simple",)
        ),
        Setting(
            "image_endpoint",
            "endpoint",
            "The same for pictures, sent in base64; the service puts the prompts then",
            ("http-simple",),
        ),
        Setting("field", "text", "What the request calls the texts", ("http-simple",)),
        Setting("answer_field", "text", "Where the answer holds the vectors", ("http-simple",)),
        Setting("one_by_one", "flag", "Whether the service takes one text per request", ("http-simple",)),
        Setting("final_token", "text", "Who puts the final token", ("openai",), ("server", "append")),
        Setting("encoding", "text", "How vectors are asked for", ("openai",), ("base64", "float")),
        Setting("keep_alive", "text", "How long Ollama keeps the model in memory", ("ollama",)),
        Setting("template", "text", "Who puts a reranker's template", ("rerank-http",), ("server", "client")),
        Setting("probe", "text", "Whether scores are tried first", ("rerank-http",), ("refuse", "off")),
        Setting("scores", "text", "What scores are", ("rerank-http",), ("auto", "probability", "log_odds")),
    )
}
"""Everything that a file may say of one model: it drives reading, checking and the documentation."""

FILE_SETTINGS: Mapping[str, str] = {
    "version": "`1`; may be left out",
    "default_model": "The embedding model where none is named: a name of `models`, a recorded name or a reference",
    "models": "The models by name",
    "reranker": "The reranker where none is named; a name, or a mapping like those in `models`",
    "fallback_chain": "Names of `models`, in the order in which they are tried",
    "reranker_chain": "Names of rerankers in `models`, in the order in which they are tried",
    "allow_degraded": "Whether a chain may answer from another vector space, marked as such",
    "runs": "Where recorded models run: their id, and the name in `models` that says how",
}
"""Everything that a file may say besides."""

_OF_THE_CALL = (
    "revision", "dim", "max_tokens", "instruction", "task", "normalize", "truncate", "like", "max_pixels",
    "special_tokens", "picture_prompt",
)  # fmt: skip
"""Settings that say what vectors are made, and of what: `runs` leaves them to the record and the call."""
_HABITS = ("timeout",)
"""Settings that files give to every model: where they do not apply, that is told, and no error."""
_NOT_HERE = {
    "trust_remote_code": "code that comes with a model is allowed in the program only, with a full commit id: "
    "Embedder(..., revision='<40 hex digits>', trust_remote_code=True)",
    "trust_code": "code that comes with a model is allowed in the program only: trust_remote_code=True",
    "pooling": "the model's files and its record decide it; like: takes it from a recorded model",
    "prompts": "the model's record decides them; instruction: says what queries are for",
    "cost_per_token": "prices are not known here; leave it out",
}


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One configured model: what the file says of it, by the names that settings have here."""

    name: str
    settings: Mapping[str, Any]
    """Canonical names to values: texts, whole numbers, flags, and seconds as `float`."""
    where: str = ""
    """File, line and column, for messages; empty: the program itself."""
    folder: str = ""
    """The file's folder, from which relative paths count."""
    notes: tuple[str, ...] = ()
    """What has no effect, with the reason."""

    @property
    def provider(self) -> str:
        """Return the provider as it is called here."""
        return str(self.settings.get("provider", "native"))

    def __reduce__(self) -> tuple[Any, ...]:
        # Read-only views cannot be copied themselves.
        return _entry, (self.name, dict(self.settings), self.where, self.folder, self.notes)


def _entry(name: str, settings: dict[str, Any], where: str, folder: str, notes: tuple[str, ...]) -> ModelEntry:
    return ModelEntry(name, MappingProxyType(settings), where, folder, notes)


_NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What a configuration file says, checked as far as that needs no model."""

    file: str = ""
    """Where it comes from; empty: nowhere."""
    default_model: str | None = None
    models: Mapping[str, ModelEntry] = field(default_factory=dict)
    """By name, in the order of the file."""
    reranker: str | None = None
    fallback_chain: tuple[str, ...] = ()
    reranker_chain: tuple[str, ...] = ()
    allow_degraded: bool = False
    runs: Mapping[str, str] = field(default_factory=dict)
    """Ids of recorded models to names in `models`."""

    @property
    def notes(self) -> list[str]:
        """Return what has no effect, and where it stands."""
        told = [f"{entry.where}: {entry.name}: {note}" for entry in self.models.values() for note in entry.notes]
        for model, name in self.runs.items():
            entry = self.models.get(name)
            if entry and (dropped := [setting for setting in entry.settings if setting in _OF_THE_CALL]):
                told.append(
                    f"{entry.where}: {name}: {', '.join(dropped)} count where {name!r} is named, and not where runs: "
                    f"has {model} run so: a recorded id takes from it where it runs, and nothing else"
                )
        return told

    def __reduce__(self) -> tuple[Any, ...]:
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return _config, ({**values, "models": dict(self.models), "runs": dict(self.runs)},)


def _config(values: dict[str, Any]) -> Config:
    read_only = {name: MappingProxyType(values[name]) for name in ("models", "runs")}
    return Config(**{**values, **read_only})


def read_config(root: Node | None, file: str, folder: str) -> Config:
    """Return what a file says.

    Args:
        root: The file's tree.
        file: Its name, for messages.
        folder: Its folder, from which relative paths count.

    Raises:
        ConfigError: Something cannot be; all of it is told at once.
    """
    problems = Problems(file)
    config = Config(file=file) if root is None else _Reader(problems, file, folder).config(root)
    problems.raise_if_any()
    return config


def entry_of(name: str, settings: Mapping[str, Any]) -> ModelEntry:
    """Return an entry that a program makes itself, of plain values under any of the words that a file may use.

    Raises:
        ConfigError: Something cannot be.
    """
    problems = Problems("register()")
    start = Place(1, 1)
    table = Table(tuple((Scalar(key, False, start), _node(value)) for key, value in settings.items()), start)
    reader = _Reader(problems, "", "")
    reader.name(Scalar(name, False, start))
    entry = reader.entry(name, table, start)
    problems.raise_if_any()
    return entry


def _node(value: object) -> Node:
    start = Place(1, 1)
    if isinstance(value, Mapping):
        return Table(tuple((Scalar(str(key), False, start), _node(item)) for key, item in value.items()), start)
    if isinstance(value, (list, tuple)):
        return Listing(tuple(map(_node, value)), start)
    plain = value is None or isinstance(value, (bool, int, float))
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return Scalar(text, plain, start)


class _Reader:
    """Reads the parts of one file. What is wrong is noted, and reading goes on."""

    def __init__(self, problems: Problems, file: str, folder: str) -> None:
        self._problems, self._file, self._folder = problems, file, folder

    def config(self, root: Node) -> Config:
        found = self._table(root, "the configuration")
        outer = [item for item in found if item[0].text == "embeddings"]
        if outer:
            if len(found) > 1:
                other = next(key for key, _ in found if key.text != "embeddings")
                self._problems.add(other.place, f"{_shown(other.text)} stands beside embeddings:; move it into that")
            found = self._table(outer[0][1], "embeddings")
        values = self._words(found, FILE_SETTINGS, FILE_ALIASES, "the configuration")
        self._version(values)
        models: dict[str, ModelEntry] = {}
        if "models" in values:
            for key, node in self._table(values["models"][1], "models"):
                self.name(key)
                models[key.text] = self.entry(key.text, node, key.place)
        reranker = self._reranker(values, models)
        default = self._named(values, "default_model", models)
        chain, rerankers = (self._chain(what, values, models) for what in ("fallback_chain", "reranker_chain"))
        runs = self._runs(values, models)
        degraded = values.get("allow_degraded")
        return Config(
            file=self._file,
            default_model=default,
            models=MappingProxyType(models),
            reranker=reranker,
            fallback_chain=chain,
            reranker_chain=rerankers,
            allow_degraded=bool(degraded and self._value(degraded[1], "flag", "allow_degraded")),
            runs=MappingProxyType(runs),
        )

    def name(self, key: Scalar) -> None:
        """Refuse what a configured model may not be called."""
        text = key.text
        if text.lower() in {known.lower() for known in plugins().catalog.models}:
            self._problems.add(
                key.place,
                f"{_shown(text)} is the id of a recorded model, which a configuration cannot give another meaning; "
                f"choose a name, and write model_id: {text} (runs: says where a recorded model runs)",
            )
        elif not NAME.fullmatch(text):
            self._problems.add(
                key.place,
                f"a model cannot be called {_shown(text)}: a name has letters, digits, '-', '_' and '.', 64 at most; "
                "what has a slash or a colon is an id or a reference, and goes to model_id:",
            )

    def entry(self, name: str, node: Node, at: Place) -> ModelEntry:
        """Return one model, whose name stands at a place."""
        what = f"models.{name}" if self._file else name
        values = self._words(self._table(node, what), MODEL_SETTINGS, MODEL_ALIASES, what)
        settings: dict[str, Any] = {}
        for setting, (_, value, alias) in values.items():
            kind = alias.kind if alias is not None and alias.kind else MODEL_SETTINGS[setting].kind
            read = self._value(value, cast("Kind", kind), f"{what}.{setting}", MODEL_SETTINGS[setting].choices)
            if read is not None:
                settings[setting] = alias.means(read) if alias is not None and alias.means is not None else read
        notes = self._belonging(what, values, settings)
        if "cache_ttl" in settings and not settings.get("cache"):
            key = values["cache_ttl"][0]
            if "cache" in settings:
                notes.append(f"{key.text} has no effect: no vectors are kept, by {values['cache'][0].text}: false")
            else:
                self._problems.add(
                    key.place,
                    f"{what}.{key.text} says how long vectors are kept, and nothing says that they are; add cache: "
                    "true, or remove it",
                )
        place = where(self._file, at) if self._file else ""
        return ModelEntry(name, MappingProxyType(settings), place, self._folder, tuple(notes))

    def _belonging(
        self, what: str, values: Mapping[str, tuple[Scalar, Node, Alias | None]], settings: dict[str, Any]
    ) -> list[str]:
        """Refuse settings that do nothing for this provider, and return what is told of those written by habit."""
        notes: list[str] = []
        if "provider" in settings:
            settings["provider"] = provider_name(settings["provider"])
            if settings["provider"] not in {*PROVIDERS, *plugins().catalog.backends}:
                self._unknown(values["provider"][1].place, f"{what}.provider", settings["provider"], PROVIDERS)
                return notes
        elif "base_url" in settings:
            self._problems.add(
                values["base_url"][0].place,
                f"{what} has a base_url and no provider; add a line that says what is there, such as provider: openai",
            )
            return notes
        groups = groups_of(settings)
        if groups is None:
            return notes
        for setting, (key, _, alias) in values.items():
            belongs = MODEL_SETTINGS[setting].of
            if setting not in settings or not belongs or groups & set(belongs):
                continue
            provider = settings.get("provider", "native")
            if alias is not None and alias.elsewhere:
                notes.append(f"{key.text} {alias.elsewhere}")
                del settings[setting]
            elif setting in _HABITS:
                notes.append(f"{key.text} has no effect: a model in this process is not waited for")
                del settings[setting]
            else:
                for_what = {"process": "models in this process", "server": "models on servers"}
                of = " and ".join(for_what.get(name, f"the provider {name}") for name in belongs)
                self._problems.add(
                    key.place, f"{what}.{key.text} is for {of}, and does nothing for the provider {provider}; remove it"
                )
        return notes

    def _version(self, values: Mapping[str, tuple[Scalar, Node, Alias | None]]) -> None:
        if "version" not in values:
            return
        node = values["version"][1]
        if not isinstance(node, Scalar) or node.text.strip() != str(VERSION):
            shown = node.text[:20] if isinstance(node, Scalar) else "..."
            self._problems.add(
                node.place,
                f"version: {shown} is not known; this release reads version: {VERSION}, a newer one may more",
            )

    def _reranker(
        self, values: Mapping[str, tuple[Scalar, Node, Alias | None]], models: dict[str, ModelEntry]
    ) -> str | None:
        if "reranker" in values and isinstance(values["reranker"][1], Table):
            key, node, _ = values["reranker"]
            if "reranker" in models:
                self._problems.add(key.place, "there is a model called reranker already; write reranker: reranker")
            entry = self.entry("reranker", node, key.place)
            settings = MappingProxyType({"kind": "reranker", **entry.settings})
            models["reranker"] = ModelEntry("reranker", settings, entry.where, entry.folder, entry.notes)
            return "reranker"
        return self._named(values, "reranker", models)

    def _named(
        self, values: Mapping[str, tuple[Scalar, Node, Alias | None]], what: str, models: Mapping[str, ModelEntry]
    ) -> str | None:
        """Return a model that is configured, recorded, on the hub, a folder or elsewhere."""
        if what not in values:
            return None
        node = values[what][1]
        text: str | None = self._value(node, "text", what)
        if text is None or text in models:
            return text
        is_more = any(mark in text for mark in "/:\\") or text.startswith(("~", "."))
        if not is_more and not references.is_reference(text) and plugins().catalog.find_model(text) is None:
            self._unknown(node.place, what, text, models)
        return text

    def _chain(
        self, what: str, values: Mapping[str, tuple[Scalar, Node, Alias | None]], models: Mapping[str, ModelEntry]
    ) -> tuple[str, ...]:
        if what not in values:
            return ()
        node = values[what][1]
        if not isinstance(node, Listing):
            self._problems.add(node.place, f"{what} is a list of names, such as [first, second]")
            return ()
        chain: list[str] = []
        for item in node.items:
            name = self._value(item, "text", what)
            if name is None:
                continue
            if name not in models:
                self._unknown(item.place, what, name, models)
            elif name in chain:
                self._problems.add(item.place, f"{what} has {_shown(name)} twice; leave one")
            chain.append(name)
        return tuple(chain)

    def _runs(
        self, values: Mapping[str, tuple[Scalar, Node, Alias | None]], models: Mapping[str, ModelEntry]
    ) -> dict[str, str]:
        found: dict[str, str] = {}
        if "runs" not in values:
            return found
        catalog = plugins().catalog
        for key, node in self._table(values["runs"][1], "runs"):
            name = self._value(node, "text", f"runs.{key.text}")
            if key.text not in catalog.models:
                known = catalog.near_names(key.text)
                hint = f"; did you mean {' or '.join(map(repr, known))}?" if known else ""
                self._problems.add(key.place, f"runs: {_shown(key.text)} is not the id of a recorded model{hint}")
            elif name is not None and name not in models:
                self._unknown(node.place, f"runs.{key.text}", name, models)
            elif name is not None:
                found[key.text] = name
        return found

    def _table(self, node: Node, what: str) -> tuple[tuple[Scalar, Node], ...]:
        if isinstance(node, Table):
            return node.entries
        if not (isinstance(node, Scalar) and node.value is None):
            self._problems.add(node.place, f"{what} is a mapping, with a setting and its value in each line")
        return ()

    def _words(
        self,
        entries: tuple[tuple[Scalar, Node], ...],
        settings: Collection[str],
        aliases: Mapping[str, Alias],
        what: str,
    ) -> dict[str, tuple[Scalar, Node, Alias | None]]:
        """Return what was given, by the names that settings have here. Two words for one setting must agree."""
        found: dict[str, tuple[Scalar, Node, Alias | None]] = {}
        for key, node in entries:
            word = key.text.lower().replace("-", "_")
            alias = None if word in settings else aliases.get(word)
            name = word if alias is None else alias.setting
            if name not in settings:
                self._no_setting(key, node, settings, aliases, what)
            elif name in found:
                first_key, first_node, first_alias = found[name]
                if self._compared(first_node, first_alias, name) != self._compared(node, alias, name):
                    self._problems.add(
                        key.place,
                        f"{what} has {first_key.text} and {key.text}, which are one setting ({name}), with different "
                        "values; leave one",
                    )
            else:
                found[name] = key, node, alias
        return found

    def _compared(self, node: Node, alias: Alias | None, name: str) -> object:
        kind = alias.kind if alias is not None and alias.kind else None
        kind = kind or (MODEL_SETTINGS[name].kind if name in MODEL_SETTINGS else "text")
        # What is wrong with a value is told where it is read.
        value = _Reader(Problems(""), "", "")._value(node, cast("Kind", kind), "")
        if name == "provider" and isinstance(value, str):
            return provider_name(value)
        return alias.means(value) if alias is not None and alias.means is not None and value is not None else value

    def _no_setting(
        self, key: Scalar, node: Node, settings: Collection[str], aliases: Mapping[str, Alias], what: str
    ) -> None:
        word = key.text.lower().replace("-", "_")
        if word in _NOT_HERE:
            self._problems.add(key.place, f"{what}.{word} cannot be set in a configuration: {_NOT_HERE[word]}")
        elif settings is MODEL_SETTINGS and _SECRET.search(word):
            # Whatever stands there may be a key, and is never repeated.
            variable = next(iter(PROVIDER_KEYS.values()))
            self._problems.add(
                key.place,
                f"{what}.{word}: a key does not belong in this file; put it into a variable and name that: "
                f"api_key_env: {variable}, or into a file: api_key_file: PATH",
            )
        else:
            self._unknown(key.place, what, key.text, [*settings, *aliases], "setting")

    def _unknown(
        self, place: Place, what: str, text: str, known: Collection[str], of: Literal["setting", "name"] = "name"
    ) -> None:
        near = difflib.get_close_matches(text.lower(), known, n=2)
        if near:
            hint = f"did you mean {' or '.join(near)}?"
        else:
            names = sorted(known) if of == "name" else []
            hint = f"there are {', '.join(names[:12])}" if names else "leave it out"
            hint = hint if of == "name" or names else "the documentation lists the settings"
        says = f"{what} has no setting {_shown(text)}" if of == "setting" else f"{what}: {_shown(text)} is not known"
        self._problems.add(place, f"{says}; {hint}")

    def _value(self, node: Node, kind: Kind, what: str, choices: tuple[str, ...] = ()) -> Any:
        """Return a value of a kind, `None` if nothing stands there or if it is none of that kind, which is noted."""
        if kind == "endpoint" and isinstance(node, Table):
            inner = {key.text: value for key, value in node.entries}
            if set(inner) == {"path"}:
                return self._value(inner["path"], "text", f"{what}.path")
            self._problems.add(node.place, f"{what} is a path, or {{path: /encode}} and nothing else")
            return None
        if not isinstance(node, Scalar):
            self._problems.add(
                node.place, f"{what} is one value, not a {'list' if isinstance(node, Listing) else 'mapping'}"
            )
            return None
        value = node.value
        if value is None:
            return None
        problem: str | None = None
        if kind in ("text", "endpoint"):
            # As it is written: a commit of digits is no number.
            value = node.text.strip()
            if not value:
                problem = "is empty; write something, or leave the line out"
            elif choices and value not in choices:
                problem = f"is one of {', '.join(choices)}, not {_shown(value)}"
        elif kind == "sentence":
            value = node.text
        elif kind == "name":
            value = node.text.strip()
            if not _VARIABLE.fullmatch(value):
                # It may be the key itself.
                problem = "is the name of a variable that ends in _API_KEY, _TOKEN or _KEY, and this is none"
        elif kind in ("count", "number"):
            least = 1 if kind == "count" else 0
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                problem = f"is a whole number of at least {least}, not {_shown(node.text)}"
        elif kind == "seconds":
            value = _seconds(value)
            if value is None:
                problem = f"is a number of seconds, or a time such as 30s, 500ms or 1h, not {_shown(node.text)}"
        elif kind == "flag" or (kind == "cache" and not isinstance(value, str)):
            if not isinstance(value, bool):
                problem = f"is true or false, not {_shown(node.text)}"
        elif value not in ("memory", "sqlite"):
            problem = f"is true, false, memory or sqlite, not {_shown(node.text)}"
        if problem is None:
            return value
        self._problems.add(node.place, f"{what} {problem}")
        return None


def groups_of(settings: Mapping[str, Any]) -> set[str] | None:
    """Return what the settings of a model may be for, by its provider; `None` for a plugin's runtime."""
    provider = PROVIDERS.get(settings.get("provider", "native"))
    if provider is None:
        return None
    if settings.get("provider") == "local" and "base_url" in settings:
        provider = PROVIDERS["http-simple"]
    if provider.in_process:
        return {"process", "engine"} if provider.backend in (None, "engine") else {"process"}
    kinds = {kind.__name__ for kind in (provider.embeds, provider.reranks) if kind is not None}
    return {"server", *(RUNTIME_OF[kind] for kind in kinds)}


RUNTIME_OF: Mapping[str, str] = {
    "OpenAI": "openai", "Tei": "tei", "Ollama": "ollama", "RerankHttp": "rerank-http", "HttpSimple": "http-simple",
    "HfInference": "hf-inference",
}  # fmt: skip
"""The runtimes' names by the names of their options."""


def _seconds(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return float(value) if 0 < value < 1e9 else None
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None or not any(found.groups()):
        return None
    total = sum(float(part) * unit for part, unit in zip(found.groups(), _UNITS, strict=True) if part)
    return total if 0 < total < 1e9 else None


def _shown(text: str) -> str:
    return repr(text) if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]!r}..."
