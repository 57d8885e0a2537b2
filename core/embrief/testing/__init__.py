r"""For authors of plugins and wrappers: models without weights that show what reached them, and contract checks.

Examples:
    >>> from embrief import Embedder
    >>> from embrief.testing import FakeRuntime
    >>> with FakeRuntime() as fake:
    ...     vector = Embedder(fake.qwen3).embed_query("red planet", instruction="Find planets")
    >>> fake.texts
    ['Instruct: Find planets\nQuery:red planet']
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embrief.testing.contract import check_runtime
    from embrief.testing.fakes import FakeRuntime
    from embrief.testing.faults import Faults, Wire
    from embrief.testing.loopback import Asked, LoopbackServer, Reply
    from embrief.testing.models import check_model

__all__ = [
    "Asked",
    "FakeRuntime",
    "Faults",
    "LoopbackServer",
    "Reply",
    "Wire",
    "check_model",
    "check_runtime",
]

_WHERE = {
    "contract": ("check_runtime",),
    "fakes": ("FakeRuntime",),
    "faults": ("Faults", "Wire"),
    "loopback": ("Asked", "LoopbackServer", "Reply"),
    "models": ("check_model",),
}
"""What is imported when it is first asked for: a fake needs neither a server nor asyncio."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        for module, names in _WHERE.items():
            if name in names:
                found = globals()[name] = getattr(importlib.import_module(f"{__name__}.{module}"), name)
                return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
