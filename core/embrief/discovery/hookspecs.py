"""The hooks a plugin may implement. Project name and entry-point group: `embrief`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from embrief.discovery.integrations import Integration
    from embrief.facts.specs import ModelSpec
    from embrief.runtimes.base import Runtime

hookspec = pluggy.HookspecMarker("embrief")
hookimpl = pluggy.HookimplMarker("embrief")


@hookspec
def register_models(register: Callable[[ModelSpec], None]) -> None:
    """Call `register(spec)` for each model to add."""


@hookspec
def register_backends(register: Callable[[Runtime], None]) -> None:
    """Call `register(backend)` for each runtime to add. Must not import the runtime."""


@hookspec
def register_integrations(register: Callable[[Integration], None]) -> None:
    """Call `register(integration)` for each framework to add. Must not import the framework."""


@hookspec(firstresult=True)
def select_backend(spec: ModelSpec, available: tuple[str, ...]) -> str | None:
    """Return the name of the runtime that should serve `spec`, or `None` to leave the choice to others.

    Asked only if the user names no backend. `available` lists the installed runtimes that serve the model, best first.
    """
