"""The texts and pictures of a client call: where they stand, which vector each is for, whether it belongs there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from pydantic import BaseModel
from qdrant_client import models

from embrief.wrapping import unicode
from qdrant_embrief.inference.contents import Inference, content_of
from qdrant_embrief.inference.embedders import view_of

if TYPE_CHECKING:
    from embrief import Embedder
    from embrief.wrapping import Input
    from qdrant_embrief.guard import Stored
    from qdrant_embrief.inference.embedders import NamedEmbedders

T = TypeVar("T")

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


class DocumentCheck:
    """Compares the documents of one call with the collection, which is read when the first one comes."""

    def __init__(self, embedders: NamedEmbedders, read: Callable[[], Stored]) -> None:
        self._embedders = embedders
        self._read = read
        self._stored: Stored | None = None
        self._passed: set[tuple[object, ...]] = set()
        self._seen = 0
        # With the object, whose id is its own for as long as it is here.
        self._contents: dict[int, tuple[Inference, Input]] = {}

    def __call__(self, found: Iterable[Placed]) -> None:
        """Refuse the first document whose vector does not belong into its field, or that holds what cannot be embedded.

        Pictures are read and decoded, after everything else.

        Raises:
            SpaceMismatchError: The field holds vectors of another space or width, or the name is not attached and
                the field is stamped.
            ArgumentError: The collection has no dense vector of this name, an option does not fit the model, or a
                picture is none. What is about one object has its place among those of the call as index.
            ArgumentTypeError: An option has the wrong type, or there is a picture and the model takes texts only.
        """
        ours: list[tuple[int, Inference, Embedder]] = []
        for using, item in found:
            index, self._seen = self._seen, self._seen + 1
            if self._stored is None:
                self._stored = self._read()
            if isinstance(item, models.Document):
                unicode(item.text, "the text of a Document")
            embedder = self._embedders.find(item.model)
            if embedder is None:
                self._stored.refuse_stranger(using, item.model, attached=self._embedders.known)
                continue
            view = view_of(embedder, item.options)
            key = (using, view.settings)
            if key not in self._passed:
                self._stored.field(using).require(view)
                self._passed.add(key)
            ours.append((index, item, view))
        for index, item, view in ours:
            held = content_of(item, view, index)
            if not isinstance(held, str):
                self._contents[id(item)] = item, held

    def take(self, item: Inference) -> Input | None:
        """Return what a picture was found to hold, once: it is decoded already. `None`: nothing is known of it."""
        kept = self._contents.pop(id(item), None)
        return kept[1] if kept is not None else None


_upload: ContextVar[DocumentCheck | None] = ContextVar("upload", default=None)
_call: ContextVar[DocumentCheck | None] = ContextVar("call", default=None)


@contextmanager
def call_under_way(check: DocumentCheck) -> Iterator[None]:
    """Let `held` find what the check has decoded."""
    token = _call.set(check)
    try:
        yield
    finally:
        _call.reset(token)


@contextmanager
def upload_under_way(check: DocumentCheck) -> Iterator[None]:
    """Let `checked` compare what an upload embeds. Its points may be an endless stream, so not beforehand."""
    token = _upload.set(check)
    try:
        with call_under_way(check):
            yield
    finally:
        _upload.reset(token)


def held(item: Inference, embedder: Embedder, index: int) -> Input:
    """Return what an object of the call under way holds, as of `content_of`."""
    check = _call.get()
    known = check.take(item) if check is not None else None
    return known if known is not None else content_of(item, embedder, index)


def checked(raw_models: Iterable[T]) -> Iterator[T]:
    """Pass the points of the upload under way on, each after the check."""
    check = _upload.get()
    for raw in raw_models:
        if check is not None:
            check(documents(raw))
        yield raw
