"""Which runtime serves a model, and why not another."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from embrief.errors import ArgumentError, BackendError, MissingDependencyError, PluginWarning, warn

if TYPE_CHECKING:
    from embrief.discovery.catalog import Catalog
    from embrief.facts.specs import ModelSpec
    from embrief.files.model_files import ModelFiles
    from embrief.runtimes.base import Backend

_NONE: Mapping[str, str] = MappingProxyType({})


def runtimes_for(catalog: Catalog, spec: ModelSpec) -> list[Backend]:
    """Return the runtimes that can serve a model, installed or not, best first."""
    serving = [backend for backend in catalog.backends.values() if _serves(catalog, backend, spec)]
    return sorted(serving, key=lambda backend: -backend.preference)


def needs_download(catalog: Catalog, spec: ModelSpec) -> bool:
    """Return whether a model has files that do not come with its record."""
    return spec.folder is None and all(backend.needs_files for backend in runtimes_for(catalog, spec))


def _serves(catalog: Catalog, backend: Backend, spec: ModelSpec) -> bool:
    """Ask a runtime whether it serves a model; one that fails must not take the models of the others with it."""
    try:
        return bool(backend.serves(spec))
    except (Exception, SystemExit) as error:
        problem = f"the backend {backend.name!r} failed when asked whether it supports {spec.id}: {error!r}"
        if catalog.report(backend.name, problem):
            warn(f"{problem}; it is left out", PluginWarning)
        return False


def refusals_of(catalog: Catalog, spec: ModelSpec, files: ModelFiles) -> dict[str, str]:
    """Return why runtimes that support a model cannot run these files of it, by the runtimes' names."""
    found: dict[str, str] = {}
    for backend in runtimes_for(catalog, spec):
        if backend.refusal is not None:
            try:
                reason = backend.refusal(spec, files)
            except (Exception, SystemExit) as error:
                reason = f"failed when asked whether it runs {spec.id}: {error!r}"
                catalog.report(backend.name, f"the backend {backend.name!r} {reason}")
            if reason is not None:
                found[backend.name] = reason
    return found


def passed_over(catalog: Catalog, spec: ModelSpec, chosen: Backend, refusals: Mapping[str, str]) -> str:
    """Say why no runtime of higher preference runs a model."""
    better = [backend for backend in runtimes_for(catalog, spec) if backend.preference > chosen.preference]
    reasons = [
        f"the {backend.name} {refusals[backend.name]}"
        if backend.name in refusals
        else f"{backend.name} needs {', '.join(backend.missing())}"
        for backend in better
        if backend.name in refusals or backend.missing()
    ]
    if reasons:
        return "; ".join(reasons)
    first = max(catalog.backends.values(), key=lambda backend: backend.preference)
    return "it is the fastest" if chosen is first else f"no faster one runs {spec.architecture!r} models"


def choose_runtime(
    catalog: Catalog, spec: ModelSpec, asked: str | None, preferred: str | None, refusals: Mapping[str, str] = _NONE
) -> Backend:
    """Return the runtime for a model.

    Args:
        catalog: What is registered.
        spec: The model.
        asked: The user's choice; wins.
        preferred: A plugin's choice; else the best installed runtime that serves the model.
        refusals: Why runtimes cannot run this model's files.

    Raises:
        ArgumentError: The runtime asked for does not exist or cannot serve the model.
        MissingDependencyError: The runtime is not installed.
        BackendError: No runtime can serve the model.
    """
    name = asked if asked is not None else preferred
    serving = runtimes_for(catalog, spec)
    if name is not None:
        if name not in catalog.backends:
            raise ArgumentError(f"there is no backend {name!r}; there are {', '.join(catalog.backends)}")
        if catalog.backends[name] not in serving:
            able = ", ".join(backend.name for backend in serving) or "none"
            raise ArgumentError(f"the backend {name!r} cannot run {spec.id}; those that can: {able}")
        if name in refusals:
            raise ArgumentError(f"the backend {name!r} cannot run {spec.id}: it {refusals[name]}; leave backend out")
        serving = [catalog.backends[name]]
    serving = [backend for backend in serving if backend.name not in refusals]
    installed = [backend for backend in serving if not backend.missing()]
    if installed:
        return installed[0]
    if not serving:
        raise BackendError(f"no backend can run {spec.id} (architecture {spec.architecture!r})")
    first = serving[0]
    raise MissingDependencyError(
        f"{spec.id} runs on the backend {first.name!r}, which needs {', '.join(first.missing())}: {first.install}"
    )
