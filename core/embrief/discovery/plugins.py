"""Discovery: built-in things first, then each entry point by itself; a broken plugin is reported and harms nothing.

pluggy's own loader stops at the first plugin that fails to import and drops equal names without a word, so each entry
point is loaded here one at a time.

Whatever that takes is imported inside the functions: this module comes with `import embrief`.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from embrief.errors import EmbriefError, PluginError, PluginWarning, warn

if TYPE_CHECKING:
    import importlib.metadata

    import pluggy

    from embrief.discovery.catalog import Catalog
    from embrief.facts.specs import ModelSpec

GROUP = "embrief"
VARIABLE = "EMBRIEF_PLUGINS"
"""Environment variable: names of the third-party entry points to load, separated by commas. Empty: none."""
_OWN_DISTRIBUTION = "embrief"
_UNKNOWN = "unknown"
# A plugin may call sys.exit() wherever it is run, which must not end the caller's program.
_FAULTS = (Exception, SystemExit)
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

    catalog: Catalog
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
            except _FAULTS as error:
                self.faulty_selectors.add(name)
                self._report(name, f"select_backend failed and is no longer asked: {error!r}")
                warn(f"plugin {name!r} failed in select_backend and is no longer asked: {error!r}", PluginWarning)
            else:
                if chosen is not None:
                    return str(chosen)
        return None

    def _report(self, name: str, problem: str) -> None:
        for report in self.reports:
            # Of two entry points of one name the first is the one that was loaded.
            if report.name == name:
                report.problems.append(problem)
                return


def _entry_points(unreadable: list[PluginReport]) -> list[importlib.metadata.EntryPoint]:
    """Return our own entry points first, then those of others in a stable order."""

    def order(point: importlib.metadata.EntryPoint) -> tuple[bool, str, str]:
        return _distribution(point) != _OWN_DISTRIBUTION, _distribution(point), point.name

    import importlib.metadata

    try:
        points = list(importlib.metadata.entry_points(group=GROUP))
    except Exception:
        # One unreadable file among all installed packages fails the whole call. Slower: one package at a time.
        points = list(_readable_entry_points(unreadable))
    return sorted(points, key=order)


def _readable_entry_points(unreadable: list[PluginReport]) -> Iterator[importlib.metadata.EntryPoint]:
    import importlib.metadata

    seen: set[str] = set()
    for distribution in importlib.metadata.distributions():
        name = _fact(distribution, "name")
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in seen and name != _UNKNOWN:
            continue  # a folder earlier on the path hides it, as with imports
        seen.add(key)
        try:
            points = distribution.entry_points.select(group=GROUP)
        except Exception as error:
            if f"[{GROUP}]" in (distribution.read_text("entry_points.txt") or ""):
                report = PluginReport("entry_points.txt", name, _fact(distribution, "version"))
                report.problems.append(f"it cannot be read: {error!r}")
                unreadable.append(report)
        else:
            yield from points


def _fact(distribution: importlib.metadata.Distribution | None, name: str) -> str:
    """Return a package's name or version. The metadata of a half-removed package has neither."""
    try:
        return str(getattr(distribution, name) or _UNKNOWN)
    except Exception:
        return _UNKNOWN


def _distribution(point: importlib.metadata.EntryPoint) -> str:
    return _fact(point.dist, "name")


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
                returned = implementation.function(register=register)
            except _FAULTS as error:
                report.problems.append(f"{hook} raised {error!r}")
            else:
                if returned is not None:
                    report.problems.append(
                        f"{hook} returned a {type(returned).__name__}; it must call register(item) instead"
                    )


def _load_point(
    point: importlib.metadata.EntryPoint,
    manager: pluggy.PluginManager,
    catalog: Catalog,
    taken: dict[str, str],
) -> PluginReport:
    import pluggy

    report = PluginReport(point.name, _distribution(point), _fact(point.dist, "version"))
    if (owner := taken.get(point.name)) is not None:
        report.problems.append(f"the entry point name {point.name!r} already belongs to {owner}")
        return report
    taken[point.name] = report.distribution
    try:
        plugin = point.load()
        manager.register(plugin, name=point.name)
    except _FAULTS as error:
        # pluggy may have taken some of its hooks already.
        if manager.has_plugin(point.name):
            manager.unregister(name=point.name)
        fits = not isinstance(error, pluggy.PluginValidationError)
        report.problems.append(f"it could not be loaded: {error!r}" if fits else f"its hooks do not fit: {error}")
        return report
    hooks = {caller.name for caller in manager.get_hookcallers(plugin) or ()}
    if unknown := sorted(hooks - _HOOKS):
        report.problems.append(f"it implements hooks that do not exist: {', '.join(unknown)}")
    if not hooks:
        report.problems.append("it implements no hook; mark its functions with embrief.hookimpl")
    _collect(manager, "register_models", catalog.add_model, report)
    _collect(manager, "register_backends", catalog.add_backend, report)
    _collect(manager, "register_integrations", catalog.add_integration, report)
    return report


def _discover() -> Plugins:
    import pluggy

    from embrief.discovery import hookspecs
    from embrief.discovery.catalog import Catalog
    from embrief.facts.records import built_in_models
    from embrief.runtimes.built_in import RUNTIMES
    from embrief.servers import RUNTIMES as SERVERS

    reports: list[PluginReport] = []

    def blame(backend: str, problem: str) -> None:
        for report in reports:
            if backend in report.adds:
                report.problems.append(problem)

    catalog = Catalog(blame)
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    for spec in built_in_models():
        catalog.add_model(spec)
    for backend in (*RUNTIMES, *SERVERS):
        catalog.add_backend(backend)
    taken: dict[str, str] = {}
    for point in _entry_points(reports):
        if _allowed(point):
            reports.append(_load_point(point, manager, catalog, taken))
    return Plugins(catalog, tuple(reports), manager)


def _warn(found: Plugins) -> None:
    for report in found.reports:
        for problem in report.problems:
            warn(f"plugin {report.name!r} of {report.distribution} {report.version}: {problem}", PluginWarning)
    wanted = {name.strip() for name in os.environ.get(VARIABLE, "").split(",")} - {""}
    if absent := sorted(wanted - {report.name for report in found.reports}):
        warn(f"{VARIABLE} names plugins that are not installed: {', '.join(absent)}", PluginWarning)


def _after_fork() -> None:
    """Give a child process a lock of its own: the parent's may be held by a thread that the child does not have."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

# Re-entrant, so that a plugin that comes back here while it is loaded gets an error and no deadlock.
_lock = threading.RLock()
_found: Plugins | None = None
_loading = False


def plugins() -> Plugins:
    """Return everything that is registered. The first call discovers; the result stays for the process.

    Raises:
        PluginError: A plugin called this, or made a facade, while it was loaded or registering.
    """
    global _found, _loading
    with _lock:
        if _loading:
            raise PluginError(
                "embrief is still loading plugins; a plugin may use models only after its hooks have returned"
            )
        if (found := _found) is None:
            _loading = True
            try:
                # Kept before it is talked about: a warning that is turned into an error must not undo the discovery.
                found = _found = _discover()
            finally:
                _loading = False
            _warn(found)
    return found


def catalog() -> Catalog:
    """Return the names of all models, runtimes and integrations."""
    return plugins().catalog
