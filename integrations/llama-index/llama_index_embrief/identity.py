"""The key of LlamaIndex's ingestion cache: all that moves a document vector, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from embrief import Embedder


class Configuration(dict[str, Any]):
    """The result of `to_dict()`: a dict of all options whose text form names the document vectors only.

    LlamaIndex uses one dict for two jobs. `from_dict` needs every option back. The ingestion cache hashes `str()`
    of the same dict, and there the device or the query instruction must not count, while the weights in a
    folder and the number format that `"auto"` became must. So the dict holds the options and prints as the
    fingerprint. A copy into a plain dict, or JSON, holds and prints the options.

    The cache's key has the texts of the nodes and not their pictures: it would hand out the nodes of one picture for
    another. Where the model takes pictures the text form is therefore another each time, and nothing is found there.
    """

    def __init__(self, options: Mapping[str, Any], embedder: Embedder) -> None:
        super().__init__(options)
        self._embedder = embedder

    def __repr__(self) -> str:
        names = {name: self.get(name) for name in ("class_name", "title_metadata_key")}
        # Here, not in the constructor: it chooses a device and reads parts of a folder.
        never_twice = {} if self._embedder.spec.images is None else {"call": uuid4().hex}
        return repr({**names, "fingerprint": self._embedder.fingerprint, **never_twice})
