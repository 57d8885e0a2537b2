"""`name()`: the one moment in which Chroma asks a function something while it holds what a collection keeps.

`get_collection` and `get_or_create_collection` compare the name of the function that they are given with the one that
the collection keeps, and nothing else: two models of one class pass. No argument tells a function which collection it
is asked for, so it looks at what its caller compares. In a release of Chroma that asks otherwise it sees nothing, and
`open_collection` still does the whole comparison.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from chroma_embrief.persisted import PersistedFunction

_ASKS = "chromadb.api.collection_configuration"
_HOLDS = "persisted_ef_config"

if TYPE_CHECKING:
    guarded_name = staticmethod
else:

    class guarded_name(staticmethod):
        """`staticmethod` for `name`, which first compares the function with the collection that it is asked for."""

        def __get__(self, instance: object, owner: type | None = None) -> Any:
            """Return the function that returns the name.

            Raises:
                SpaceMismatchError: The collection keeps the configuration of another space.
                ArgumentError: The configuration is not of our format.
            """
            asking = sys._getframe(1)
            if isinstance(instance, PersistedFunction) and asking.f_globals.get("__name__") == _ASKS:
                instance.require_kept(asking.f_locals.get(_HOLDS), where="the collection")
            return super().__get__(instance, owner)
