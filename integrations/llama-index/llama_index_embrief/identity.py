"""The key of LlamaIndex's ingestion cache: all that moves a document vector, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embrief import Embedder


class Configuration(dict[str, Any]):
    """The result of `to_dict()`: a dict of all options whose text form names the document vectors only.

    LlamaIndex uses one dict for two jobs. `from_dict` needs every option back. The ingestion cache hashes `str()`
    of the same dict, and there the device or the query instruction must not count, while the weights in a
    folder and the number format that `"auto"` became must. So the dict holds the options and prints as the
    fingerprint. A copy into a plain dict, or JSON, holds and prints the options.
    """

    def __init__(self, options: Mapping[str, Any], embedder: Embedder) -> None:
        super().__init__(options)
        self._embedder = embedder

    def __repr__(self) -> str:
        names = {name: self.get(name) for name in ("class_name", "title_metadata_key")}
        # Here, not in the constructor: it chooses a device and reads parts of a folder.
        return repr({**names, "fingerprint": self._embedder.fingerprint})
