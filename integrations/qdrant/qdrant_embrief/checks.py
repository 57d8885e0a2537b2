"""The check of a client call's documents against the vector fields they are for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

from qdrant_client import models

from embrief.wrapping import unicode
from qdrant_embrief.documents import Placed, documents
from qdrant_embrief.options import view_of

if TYPE_CHECKING:
    from qdrant_embrief.embedders import NamedEmbedders
    from qdrant_embrief.guard import Stored

T = TypeVar("T")


class DocumentCheck:
    """Compares the documents of one call with the collection, which is read when the first one comes."""

    def __init__(self, embedders: NamedEmbedders, read: Callable[[], Stored]) -> None:
        self._embedders = embedders
        self._read = read
        self._stored: Stored | None = None
        self._passed: set[tuple[object, ...]] = set()

    def __call__(self, found: Iterable[Placed]) -> None:
        """Refuse the first document whose vector does not belong into its field.

        Raises:
            SpaceMismatchError: The field holds vectors of another space or width, or the name is not attached and
                the field is stamped.
            ArgumentError: The collection has no dense vector of this name, or an option does not fit the model.
            ArgumentTypeError: An option has the wrong type.
        """
        for using, item in found:
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


_upload: ContextVar[DocumentCheck | None] = ContextVar("upload", default=None)


@contextmanager
def upload_under_way(check: DocumentCheck) -> Iterator[None]:
    """Let `checked` compare what an upload embeds. Its points may be an endless stream, so not beforehand."""
    token = _upload.set(check)
    try:
        yield
    finally:
        _upload.reset(token)


def checked(raw_models: Iterable[T]) -> Iterator[T]:
    """Pass the points of the upload under way on, each after the check."""
    check = _upload.get()
    for raw in raw_models:
        if check is not None:
            check(documents(raw))
        yield raw
