"""Names to records: models, runtimes and integrations, built-in and from plugins."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from embrief.discovery.integrations import Integration
from embrief.errors import (
    ArgumentError,
    DuplicateNameError,
    UnknownModelError,
)
from embrief.facts.records.mistaken import MISTAKEN_NAMES, OPEN_SERVED_NAMES
from embrief.facts.specs import EmbeddingSpec, ModelSpec, RerankerSpec, Template
from embrief.files import foreign
from embrief.runtimes.base import Runtime, RuntimeOptions

if TYPE_CHECKING:
    from pathlib import Path


_NONE: Mapping[str, str] = MappingProxyType({})
Spec = TypeVar("Spec", EmbeddingSpec, RerankerSpec)


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)


def _require_name(name: object, what: str) -> None:
    if not isinstance(name, str) or not name:
        raise ArgumentError(f"the name of a {what} is a string that is not empty, not {name!r}")


def _no_template(spec: ModelSpec) -> object:
    """Return a prompt that is something else, `None` if there is none. Plugins are seldom type-checked."""
    if isinstance(spec, RerankerSpec):
        templates: list[object] = [spec.template]
    elif isinstance(spec, EmbeddingSpec):
        templates = [item for task in spec.prompts.tasks for item in (task.query, task.document, task.titled)]
        templates.append(spec.prompts.instructed)
    else:
        return None
    return next((item for item in templates if item is not None and not isinstance(item, Template)), None)


def _served_key(runtime: str, name: str) -> str:
    """Return a name on a runtime's servers in the form in which two of them are compared."""
    return name.lower().removesuffix(":latest") if runtime == "ollama" else name.lower()


def _is_pairs(value: object) -> bool:
    return isinstance(value, tuple) and all(_is_names(item) and len(item) == 2 for item in value)


def _is_names(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(item, str) for item in value)


class Catalog:
    """All that is registered. Names are looked up without regard to case; a taken name is refused."""

    def __init__(self, on_fault: Callable[[str, str], None] = lambda name, problem: None) -> None:
        """Start empty.

        Args:
            on_fault: Called with the name of a runtime that fails when asked what it supports, and with the problem.
        """
        self._on_fault = on_fault
        self.models: dict[str, ModelSpec] = {}
        self.backends: dict[str, Runtime] = {}
        self.integrations: dict[str, Integration] = {}
        self._names: dict[str, str] = {}
        self._faulty: set[str] = set()

    def add_model(self, spec: ModelSpec) -> None:
        """Register a model under its id and aliases.

        Raises:
            ArgumentError: It is not a record.
            DuplicateNameError: One of the names is taken.
        """
        if not isinstance(spec, (EmbeddingSpec, RerankerSpec)):
            raise ArgumentError(f"a model is an EmbeddingSpec or a RerankerSpec, not {type(spec).__name__}")
        # Plugins are seldom type-checked, and a string would be read as a tuple of letters.
        aliases: object = spec.aliases
        if not isinstance(aliases, tuple) or not all(isinstance(name, str) for name in (spec.id, *aliases)):
            raise ArgumentError(f"the id of a model is a string and its aliases are a tuple of strings: {spec.id!r}")
        if (old := _no_template(spec)) is not None:
            raise ArgumentError(
                f"the record {spec.id!r} has a prompt that is no embrief.Template but {old!r}: write "
                "Template(head, tail), where the text follows the head and the tail follows the text"
            )
        served: object = spec.served_names
        if not _is_pairs(served):
            raise ArgumentError(
                f"the served_names of {spec.id!r} are a tuple of pairs, (runtime, name there), not {served!r}"
            )
        if not spec.id or not spec.revision:
            raise ArgumentError(f"the record {spec.id!r} needs an id and a revision, which name its vectors' space")
        names = [spec.id, *spec.aliases]
        for name in names:
            if (taken := self._names.get(name.lower())) is not None:
                raise DuplicateNameError(f"the model name {name!r} already belongs to {taken!r}")
        self.models[spec.id] = spec
        self._names.update({name.lower(): spec.id for name in names})

    def add_backend(self, backend: Runtime) -> None:
        """Register a runtime.

        Raises:
            ArgumentError: It is no `Runtime`, or lacks something.
            DuplicateNameError: The name is taken, or its options belong to another runtime.
        """
        if isinstance(backend, type) and issubclass(backend, Runtime):
            raise ArgumentError(f"register an instance, {backend.__name__}(), not the class")
        if not isinstance(backend, Runtime):
            raise ArgumentError(f"a runtime is an embrief.Runtime, not {type(backend).__name__}")
        # Plugins are seldom type-checked.
        values: dict[str, object] = {
            name: getattr(backend, name, None)
            for name in ("name", "preference", "requires", "devices", "dtypes", "Options")
        }
        _require_name(values["name"], "backend")
        tuples = (values["requires"], values["devices"], values["dtypes"])
        if not (isinstance(values["preference"], int) and all(map(_is_names, tuples))):
            raise ArgumentError(
                f"the backend {backend.name!r} needs an int for preference and tuples of strings for requires, devices "
                "and dtypes"
            )
        options = values["Options"]
        if not (isinstance(options, type) and issubclass(options, RuntimeOptions)):
            raise ArgumentError(f"the backend {backend.name!r} needs a subclass of embrief.RuntimeOptions for Options")
        if backend.name in self.backends:
            raise DuplicateNameError(f"the backend name {backend.name!r} is taken")
        if options is not RuntimeOptions and (owner := self.runtime_of(options)) is not None:
            raise DuplicateNameError(f"the options {options.__name__} already belong to the backend {owner.name!r}")
        self.backends[backend.name] = backend

    def runtime_of(self, options: type[RuntimeOptions]) -> Runtime | None:
        """Return the runtime whose options these are, `None` if there is none."""
        if options is RuntimeOptions:
            return None
        return next((item for item in self.backends.values() if item.Options is options), None)

    def add_integration(self, integration: Integration) -> None:
        """Register a framework.

        Raises:
            ArgumentError: It is not a description of an integration.
            DuplicateNameError: The name is taken.
        """
        if not isinstance(integration, Integration):
            raise ArgumentError(f"a framework is described by an Integration, not {type(integration).__name__}")
        _require_name(integration.name, "integration")
        if integration.name in self.integrations:
            raise DuplicateNameError(f"the integration name {integration.name!r} is taken")
        self.integrations[integration.name] = integration

    def remove(self, backend: str, models: list[str]) -> None:
        """Take back what was registered for a while, such as the models of a test."""
        self.backends.pop(backend, None)
        for model in models:
            self.models.pop(model, None)
        self._names = {name: model for name, model in self._names.items() if model in self.models}

    def report(self, backend: str, problem: str) -> bool:
        """Blame a runtime that fails when it is asked something. Once; return whether this was the first time."""
        if backend in self._faulty:
            return False
        self._faulty.add(backend)
        self._on_fault(backend, problem)
        return True

    def find_model(self, name: str) -> ModelSpec | None:
        """Return the record of this name, `None` if there is none.

        Raises:
            UnknownModelError: The name is a known mistake; the message says why and names the right one.
        """
        if (known := self._names.get(name.lower())) is not None:
            return self.models[known]
        if (mistaken := MISTAKEN_NAMES.get(name.lower())) is not None:
            raise UnknownModelError(
                f"{name!r} is not an embedding or reranking model: {mistaken.reason}; use {mistaken.use}"
            )
        return None

    def served(self, runtime: str, name: str) -> ModelSpec | None:
        """Return the record of the model that a runtime's servers know under this name, `None` if none says so.

        Args:
            runtime: The name of the runtime, such as `"ollama"`.
            name: The name there, in any case; of Ollama with or without `:latest`.

        Raises:
            UnknownModelError: The name leaves open which model it is; the message says how to settle it.
        """
        wanted = _served_key(runtime, name)
        if (left_open := OPEN_SERVED_NAMES.get((runtime, wanted))) is not None:
            raise UnknownModelError(
                f"{name!r} on {runtime} is not taken for a model: {left_open.reason}; use {left_open.use}"
            )
        for spec in self.models.values():
            if (runtime, wanted) in {(owner, _served_key(owner, known)) for owner, known in spec.served_names}:
                return spec
        return None

    def resolve(self, name: str, *, pinned: bool = False) -> ModelSpec | Path | None:
        """Return the record or the folder of this name, `None` for an id on the hub without a record.

        Args:
            name: What a user wrote. A recorded name wins over a folder; `./name` is always a folder.
            pinned: Whether a revision was given too. Then a name close to a recorded one is meant as it is written.

        Raises:
            ArgumentError: The name is empty.
            UnknownModelError: A known mistake, a folder that does not exist, or probably a misspelt recorded name.
        """
        if not name.strip():
            raise ArgumentError("the model name is empty; give an id such as 'Qwen/Qwen3-Embedding-0.6B' or a folder")
        if (spec := self.find_model(name)) is not None:
            return spec
        if (folder := foreign.folder_of(name)) is not None:
            # A file keeps its name: in the hub's cache it is a link to one that is called by its digest.
            return folder.resolve() if folder.is_dir() else folder.parent.resolve() / folder.name
        if (problem := foreign.file_problem(name)) is not None:
            raise UnknownModelError(problem)
        if foreign.looks_like_path(name):
            raise UnknownModelError(f"there is no model folder {foreign.shown(name)}")
        if (meant := foreign.name_problem(name)) is not None:
            raise UnknownModelError(f"{foreign.shown(name)} is {meant[0]}{self._hint(meant[1])}")
        if not foreign.is_hub_id(name) or (not pinned and self._is_misspelt(name)):
            raise self.unknown(name)
        return None

    def _hint(self, name: str) -> str:
        """Return the rest of a sentence: what is recorded under nearly this name, or what the name would be."""
        near = self.near_names(name)
        # Another number is another model.
        near = [known for known in near if _digits(known) == _digits(name)] or near
        if near or foreign.is_hub_id(name):
            return f": {' or '.join(map(repr, near or [name]))}"
        return ""

    def _is_misspelt(self, name: str) -> bool:
        """Return whether a name is a recorded one but for a letter or two. Another number is another model."""
        near = self.near_names(name, cutoff=0.93)
        return any(_digits(known) == _digits(name) and abs(len(known) - len(name)) < 3 for known in near)

    def near_names(self, name: str, *, cutoff: float = 0.6) -> list[str]:
        """Return recorded ids that look like `name`, best first; one alone if it differs in what is around it only."""
        if (known := self._names.get(name.strip().strip("/").lower())) is not None:
            return [known]
        near = difflib.get_close_matches(name.lower(), list(self._names), n=3, cutoff=cutoff)
        return list(dict.fromkeys(self._names[match] for match in near))

    def unknown(self, name: str) -> UnknownModelError:
        """Return the error for a name that is neither a record nor a folder."""
        near = self.near_names(name)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        return UnknownModelError(
            f"no model has the name {foreign.shown(name)}: {hint}`embrief models` lists the names; a folder must "
            "exist, and an id on the hub has the form 'owner/name', of letters, digits, '-', '_' and '.' (if it is "
            "close to a recorded one, give its revision= too)"
        )

    def family(self, architecture: str, kind: type[Spec]) -> Spec | None:
        """Return the record that stands for all models of an architecture and kind, if there is one."""
        for spec in self.models.values():
            if isinstance(spec, kind) and spec.defines_family and spec.architecture == architecture:
                return spec
        return None
