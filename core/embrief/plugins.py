"""Discovery: built-in things first, then each entry point by itself; a broken plugin is reported and harms nothing.

pluggy's own loader stops at the first plugin that fails to import and drops equal names without a word, so each entry
point is loaded here one at a time.
"""

from __future__ import annotations

import importlib.metadata
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pluggy

from embrief import hookspecs
from embrief.backends import hashing, sentence_transformers
from embrief.errors import EmbriefError, PluginWarning, warn
from embrief.models import built_in_models
from embrief.registry import Registry

if TYPE_CHECKING:
    from embrief.specs import ModelSpec

GROUP = "embrief"
VARIABLE = "EMBRIEF_PLUGINS"
"""Environment variable: names of the third-party entry points to load, separated by commas. Empty: none."""
_OWN_DISTRIBUTION = "embrief"
_HOOKS = {"register_models", "register_backends", "register_integrations", "select_backend"}


@dataclass(slots=True)
class PluginReport:
    """What became of one entry point."""

    name: str
    distribution: str
    version: str
    adds: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def status(self) -> str:
        """Return `ok`, or `failed` if anything went wrong."""
        return "failed" if self.problems else "ok"


@dataclass(frozen=True, slots=True)
class Plugins:
    """Everything that was discovered."""

    registry: Registry
    reports: tuple[PluginReport, ...]
    manager: pluggy.PluginManager
    faulty_selectors: set[str] = field(default_factory=set)

    def preferred_backend(self, spec: ModelSpec, available: tuple[str, ...]) -> str | None:
        """Ask the plugins which runtime should serve a model; a plugin that fails here is left out with a warning."""
        for implementation in reversed(self.manager.hook.select_backend.get_hookimpls()):
            name = implementation.plugin_name
            if name in self.faulty_selectors:
                continue
            values = {"spec": spec, "available": available}
            try:
                chosen = implementation.function(*(values[argument] for argument in implementation.argnames))
                if chosen is not None and chosen not in available:
                    raise ValueError(f"it chose the backend {chosen!r}, which is not among {available}")
            except Exception as error:
                self.faulty_selectors.add(name)
                warn(f"plugin {name!r} failed in select_backend and is no longer asked: {error!r}", PluginWarning)
            else:
                if chosen is not None:
                    return str(chosen)
        return None


def _entry_points() -> list[importlib.metadata.EntryPoint]:
    """Return our own entry points first, then those of others in a stable order."""

    def order(point: importlib.metadata.EntryPoint) -> tuple[bool, str, str]:
        return _distribution(point) != _OWN_DISTRIBUTION, _distribution(point), point.name

    return sorted(importlib.metadata.entry_points(group=GROUP), key=order)


def _distribution(point: importlib.metadata.EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "unknown"


def _allowed(point: importlib.metadata.EntryPoint) -> bool:
    names = os.environ.get(VARIABLE)
    if names is None or _distribution(point) == _OWN_DISTRIBUTION:
        return True
    return point.name in {name.strip() for name in names.split(",")}


def _collect(manager: pluggy.PluginManager, hook: str, add: Callable[[Any], None], report: PluginReport) -> None:
    """Run one register hook of one plugin. A refused item is reported; the plugin's other items still count."""

    def register(item: Any) -> None:
        try:
            add(item)
        except EmbriefError as error:
            report.problems.append(str(error))
        else:
            report.adds.append(str(getattr(item, "id", None) or item.name))

    for implementation in getattr(manager.hook, hook).get_hookimpls():
        if implementation.plugin_name == report.name:
            try:
                implementation.function(register=register)
            except Exception as error:
                report.problems.append(f"{hook} raised {error!r}")


def _load_point(
    point: importlib.metadata.EntryPoint,
    manager: pluggy.PluginManager,
    registry: Registry,
    taken: dict[str, str],
) -> PluginReport:
    version = point.dist.version if point.dist is not None else "?"
    report = PluginReport(point.name, _distribution(point), version)
    if (owner := taken.get(point.name)) is not None:
        report.problems.append(f"the entry point name {point.name!r} already belongs to {owner}")
        return report
    taken[point.name] = report.distribution
    try:
        plugin = point.load()
        manager.register(plugin, name=point.name)
    except pluggy.PluginValidationError as error:
        manager.unregister(name=point.name)
        report.problems.append(f"its hooks do not fit: {error}")
        return report
    # BaseException: a plugin may call sys.exit() while it is imported, which must not end the caller's program.
    except (Exception, SystemExit) as error:
        report.problems.append(f"it could not be loaded: {error!r}")
        return report
    hooks = {caller.name for caller in manager.get_hookcallers(plugin) or ()}
    if unknown := sorted(hooks - _HOOKS):
        report.problems.append(f"it implements hooks that do not exist: {', '.join(unknown)}")
    if not hooks:
        report.problems.append("it implements no hook; mark its functions with embrief.hookimpl")
    _collect(manager, "register_models", registry.add_model, report)
    _collect(manager, "register_backends", registry.add_backend, report)
    _collect(manager, "register_integrations", registry.add_integration, report)
    return report


def _discover() -> Plugins:
    registry = Registry()
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    for spec in built_in_models():
        registry.add_model(spec)
    for backend in (hashing.BACKEND, sentence_transformers.BACKEND):
        registry.add_backend(backend)
    taken: dict[str, str] = {}
    reports = tuple(_load_point(point, manager, registry, taken) for point in _entry_points() if _allowed(point))
    for report in reports:
        for problem in report.problems:
            warn(f"plugin {report.name!r} of {report.distribution} {report.version}: {problem}", PluginWarning)
    return Plugins(registry, reports, manager)


_lock = threading.Lock()


@lru_cache(maxsize=1)
def _discovered() -> Plugins:
    return _discover()


def plugins() -> Plugins:
    """Return everything that is registered. The first call discovers; the result stays for the process."""
    with _lock:
        return _discovered()


def registry() -> Registry:
    """Return the names of all models, runtimes and integrations."""
    return plugins().registry
