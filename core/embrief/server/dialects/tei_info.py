"""What GET /info tells: TEI's own fields for one model, and beside them all that is served here.

TEI has one model. The fields at the top are those of the model that the request names, or of the first embedding model
and the first reranker. `embrief` holds a row with the same fields for each model, and the limits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import embrief
from embrief.errors import EmbriefError
from embrief.facades.embedder import Embedder
from embrief.files.weights import COMMIT
from embrief.server.failures import refused
from embrief.server.models import ROLES

if TYPE_CHECKING:
    from embrief.server.models import Served
    from embrief.server.service import Service

_POOLING = {"last": "last_token"}
"""TEI's words for poolings, where they differ from ours."""


def info_of(service: Service, name: str | None) -> dict[str, Any]:
    """Return the answer.

    Args:
        service: The server.
        name: Whose fields stand at the top, perhaps with a role; `None`: the first model's.

    Raises:
        Refused: Nothing of this name is served.
    """
    limits, models = service.limits, service.models
    rows = [_row(served, service) for served in models.all()]
    if name is None:
        chosen = rows[0]
        kinds: dict[str, Any] = {}
        for row in rows:
            kinds = row["model_type"] | kinds
    else:
        chosen = _named(rows, name)
        kinds = chosen["model_type"]
    return {
        **{key: value for key, value in chosen.items() if key not in ("name", "kind", "dimensions", "space")},
        "served_model_name": chosen["name"],
        "model_type": kinds,
        "max_concurrent_requests": limits.max_waiting,
        "max_batch_requests": None,
        "max_client_batch_size": limits.max_items,
        "version": embrief.__version__,
        "embrief": {"version": embrief.__version__, "models": rows, "roles": list(ROLES), "limits": limits.values()},
    }


def _named(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    plain, _, role = name.rpartition(":")
    for row in rows:
        if row["name"] == name or (role in ROLES and row["name"] == plain):
            return row
    has = ", ".join(row["name"] for row in rows)
    raise refused(404, "model_not_found", f"no model {name[:100]!a} is served here; there is: {has}", param="model")


def _facts(facade: Any) -> dict[str, Any]:
    """Return what a model says of itself; nothing where it cannot, so that the others are told of all the same."""
    try:
        found: dict[str, Any] = facade.info()
    except EmbriefError:
        return {}
    return found


def _row(served: Served[Any], service: Service) -> dict[str, Any]:
    facade = served.facade
    spec, told = facade.spec, _facts(facade)
    row: dict[str, Any] = {
        "name": served.name,
        "model_id": spec.id,
        "model_sha": spec.revision if COMMIT.fullmatch(spec.revision) else None,
        "model_dtype": told.get("dtype"),
        "max_input_length": facade.max_tokens,
        # A request may have more than a batch: it is shared out.
        "max_batch_tokens": service.limits.max_request_tokens,
        "auto_truncate": facade.settings.truncate != "error",
        "modalities": list(facade.modalities),
        "max_pixels": facade.max_pixels if "image" in facade.modalities else None,
    }
    if isinstance(facade, Embedder):
        pooling = _POOLING.get(found := told.get("pooling", spec.pooling), found)
        row |= {"kind": "embedding", "model_type": {"embedding": {"pooling": pooling}}}
        return row | {"dimensions": facade.dim, "space": facade.space.id if told else None}
    return row | {
        "kind": "reranker",
        "model_type": {"reranker": {"id2label": {"0": "relevant"}, "label2id": {"relevant": 0}}},
    }
