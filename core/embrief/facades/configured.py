"""What a call says, and what the configuration says of the model: one set of settings."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from embrief.config import environment
from embrief.config.names import is_server, runtime_here
from embrief.discovery.plugins import plugins
from embrief.errors import ArgumentError
from embrief.facades import arguments
from embrief.facts.specs import EmbeddingSpec
from embrief.runtimes.base import RuntimeOptions
from embrief.serving.choosing import named

if TYPE_CHECKING:
    from embrief.config.meaning import KindOf, Meant
    from embrief.facades.facade import Settings

T = TypeVar("T", bound="Settings")


def applied(settings: T, meant: Meant, given: Set[str], kind: KindOf) -> T:
    """Return the settings with what the name means. The call wins over the environment, and that over a file.

    Args:
        settings: What the call says.
        meant: What its name means.
        given: The keywords that the call has.
        kind: Whether it is about an embedding model or a reranker.

    Raises:
        ArgumentError: The call names another runtime or revision than the name does.
    """
    backend, keywords = settings.backend, meant.keywords
    if meant.backend is not None or meant.in_process:
        backend, agrees = _agreed(settings.backend, meant)
        keywords = keywords if agrees else {}
    changes: dict[str, Any] = {
        item.name: keywords[item.name] for item in fields(settings) if item.name in keywords and item.name not in given
    }
    revision = settings.revision
    if meant.revision is not None and revision is None:
        revision = meant.revision
    elif meant.fixed and meant.revision not in (None, revision):
        raise ArgumentError(f"revision={revision!r} is not the one of {meant.said_by} ({meant.revision}); give one")
    backend = runtime_here(meant, backend, kind)
    device = device_here()
    if device is not None and "device" not in given and not is_server(backend) and not _is_lexical(meant.model):
        changes["device"] = device
    return replace(settings, model=meant.model, backend=backend, revision=revision, **changes)


def device_here() -> str | None:
    """Return the device that the environment has for models in this process, `None` if it has none.

    Raises:
        ArgumentError: No runtime knows such a device.
    """
    device = environment.read(environment.DEVICE)
    if device is not None:
        try:
            arguments.runtime(device, "auto", "warn", plugins().catalog.backends.values())
        except ArgumentError as error:
            raise ArgumentError(f"the variable {environment.DEVICE}: {error}") from None
    return device


def _agreed(backend: str | RuntimeOptions | None, meant: Meant) -> tuple[str | RuntimeOptions | None, bool]:
    """Return the runtime, and whether it is the one that the name means."""
    own = meant.backend
    if backend is None or backend == own:
        return own, True
    if isinstance(own, RuntimeOptions) and backend == named(plugins().catalog, own).name:
        return own, True
    if isinstance(backend, RuntimeOptions) and own == named(plugins().catalog, backend).name:
        return backend, True
    if own is None and not is_server(backend):
        return backend, True
    if meant.yields:
        return backend, False
    where = f"says backend={own!r}" if own is not None else "runs in this process"
    raise ArgumentError(f"backend={backend!r} contradicts {meant.said_by}, which {where}; leave one of them out")


def _is_lexical(model: str) -> bool:
    spec = plugins().catalog.find_model(model)
    return isinstance(spec, EmbeddingSpec) and spec.lexical
