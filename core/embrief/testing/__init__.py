r"""For authors of plugins and wrappers: models without weights that show what reached them, and contract checks.

Examples:
    >>> from embrief import Embedder
    >>> from embrief.testing import FakeRuntime
    >>> with FakeRuntime() as fake:
    ...     vector = Embedder(fake.qwen3).embed_query("red planet", instruction="Find planets")
    >>> fake.texts
    ['Instruct: Find planets\nQuery:red planet']
"""

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
