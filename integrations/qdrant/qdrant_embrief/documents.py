"""Where documents stand in the arguments of a client call: each with the name of the vector it is for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from pydantic import BaseModel
from qdrant_client import models

Inference = models.Document | models.Image | models.InferenceObject

USER_DATA = frozenset({"payload", "payloads", "defaults"})
"""Fields that hold whatever the user likes; Qdrant embeds nothing in them."""


class Placed(NamedTuple):
    """A document and the vector field it is compared with or stored in; `""` is the unnamed one."""

    using: str
    item: Inference


def documents(value: object, using: str = "") -> Iterator[Placed]:
    """Yield every document in a query, prefetch, request, point, batch or operation, at any depth.

    All fields are followed, not those of the query kinds known today: a kind that Qdrant adds must not slip through.

    Args:
        value: An argument, or a part of one.
        using: The vector of documents that no inner name decides about.
    """
    if isinstance(value, Inference):
        yield Placed(using, value)
    elif isinstance(value, BaseModel):
        fields = vars(value)
        # A prefetch or request without a name means the unnamed vector, whatever stands around it.
        own = fields["using"] or "" if "using" in fields else using
        for name, item in fields.items():
            if name not in USER_DATA:
                yield from documents(item, own)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from documents(item, name)
    elif isinstance(value, Sequence) and not isinstance(value, str) and not _is_vector(value):
        for item in value:
            yield from documents(item, using)


def _is_vector(value: Sequence[object]) -> bool:
    # Ids may stand among documents, numbers with a point may not.
    return len(value) > 0 and isinstance(value[0], float)
