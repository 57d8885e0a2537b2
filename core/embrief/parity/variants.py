"""The reference model with one thing done otherwise, so that this cause can be named where a server agrees with it.

Only on the engine, which does as it is told; other runtimes read the model's own files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from embrief.files.modules import after_pooling, read_modules
from embrief.runtimes.base import LoadRequest

if TYPE_CHECKING:
    from embrief.facades.embedder import Embedder
    from embrief.facts.specs import Pooling
    from embrief.runtimes.base import Model

_OTHER: dict[str | None, Pooling] = {"last": "mean", "mean": "last"}


@contextmanager
def pooled_otherwise(embedder: Embedder) -> Iterator[Model | None]:
    """Load an embedder's model once more, with the other pooling; `None` where that cannot be had."""
    request, other = _request(embedder), _OTHER.get(embedder.spec.pooling)
    if request is None or other is None:
        yield None
        return
    with closing(embedder._shared.backend.load(replace(request, spec=replace(embedder.spec, pooling=other)))) as model:
        yield model


@contextmanager
def without_dense(embedder: Embedder) -> Iterator[Model | None]:
    """Load an embedder's model once more, without its Dense layers; `None` where it has none, or another width then."""
    request = _request(embedder)
    if request is None or embedder.spec.hidden_size != embedder.spec.dim or not _has_dense(request):
        yield None
        return
    # Inside: torch is heavy.
    from embrief.runtimes.engine import EngineEmbedder

    with closing(EngineEmbedder(request, without=("Dense",))) as model:
        yield model


def _request(embedder: Embedder) -> LoadRequest | None:
    shared = embedder._shared
    if shared.backend.name != "engine":
        return None
    offer = shared.offer
    return LoadRequest(embedder.spec, shared.artifact_folder, offer.device, offer.dtype, artifact=offer.artifact)


def _has_dense(request: LoadRequest) -> bool:
    assert request.folder is not None  # the engine has files
    return any(module.kind == "Dense" for module in after_pooling(read_modules(request.folder) or ()))
