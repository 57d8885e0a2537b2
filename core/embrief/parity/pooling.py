"""The reference model with the other rule of pooling, so that this cause can be named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from embrief.runtimes.base import LoadRequest

if TYPE_CHECKING:
    from embrief.facades.embedder import Embedder
    from embrief.facts.specs import Pooling
    from embrief.runtimes.base import Model

_OTHER: dict[str | None, Pooling] = {"last": "mean", "mean": "last"}


@contextmanager
def pooled_otherwise(embedder: Embedder) -> Iterator[Model | None]:
    """Load an embedder's model once more, with the other pooling; `None` where that cannot be had.

    The engine pools as it is told; other runtimes read the model's own files.
    """
    shared = embedder._shared
    other = _OTHER.get(embedder.spec.pooling)
    if other is None or shared.backend.name != "engine":
        yield None
        return
    offer = shared.offer
    spec = replace(embedder.spec, pooling=other)
    request = LoadRequest(spec, shared.artifact_folder, offer.device, offer.dtype, artifact=offer.artifact)
    with closing(shared.backend.load(request)) as model:
        yield model
