"""`embeddings_cache`, made safe."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from llama_index.core.storage.kvstore.types import BaseKVStore

from embrief import ArgumentTypeError
from embrief.errors import placed
from embrief.wrapping import PicturedText, carried, content
from llama_index_embrief.titles import title_of

if TYPE_CHECKING:
    from embrief import Embedder, Image

Rows = list[list[float]]

COLLECTION = "embeddings"
"""Where LlamaIndex keeps vectors. Ours lie beside its own and never meet: the keys have another form."""


class RoleCache(BaseKVStore):
    """Wraps the store that a user passes as `embeddings_cache`.

    LlamaIndex's base class looks vectors up by the bare text: a query gets the vector of an equal document, and
    one model the vectors of another. For the base class this store is therefore always empty and keeps nothing.
    Our own methods, which know role and model, reach the real store through `fill` and `afill`.
    """

    def __init__(self, store: object) -> None:
        if not isinstance(store, BaseKVStore):
            raise ArgumentTypeError(f"embeddings_cache is a LlamaIndex BaseKVStore, not {type(store).__name__}")
        self.store: BaseKVStore = store.store if isinstance(store, RoleCache) else store

    def fill(self, keys: Sequence[str], width: int, compute: Callable[[list[int]], Rows]) -> Rows:
        """Return the vectors of all keys, of this width; those not stored are computed in one call, by their places."""
        found = [_vector(self.store.get(key, collection=COLLECTION), width) for key in keys]
        missing = [place for place, vector in enumerate(found) if vector is None]
        with placed(missing):
            fresh = dict(zip(missing, compute(missing), strict=True)) if missing else {}
        for place, vector in fresh.items():
            self.store.put(keys[place], _entry(vector), collection=COLLECTION)
        return _merged(found, fresh)

    async def afill(self, keys: Sequence[str], width: int, compute: Callable[[list[int]], Awaitable[Rows]]) -> Rows:
        """`fill` through the store's async methods."""
        found = [_vector(await self.store.aget(key, collection=COLLECTION), width) for key in keys]
        missing = [place for place, vector in enumerate(found) if vector is None]
        with placed(missing):
            fresh = dict(zip(missing, await compute(missing), strict=True)) if missing else {}
        for place, vector in fresh.items():
            await self.store.aput(keys[place], _entry(vector), collection=COLLECTION)
        return _merged(found, fresh)

    def missing(self, keys: Sequence[str], width: int) -> list[int]:
        """Return the places of the keys whose vectors `fill` would compute."""
        entries = (self.store.get(key, collection=COLLECTION) for key in keys)
        return [place for place, entry in enumerate(entries) if _vector(entry, width) is None]

    async def amissing(self, keys: Sequence[str], width: int) -> list[int]:
        """`missing` through the store's async methods."""
        entries = [await self.store.aget(key, collection=COLLECTION) for key in keys]
        return [place for place, entry in enumerate(entries) if _vector(entry, width) is None]

    def get(self, key: str, collection: str = COLLECTION) -> dict[str, Any] | None:
        """Return nothing: the caller does not say which role and model it means."""
        return None

    async def aget(self, key: str, collection: str = COLLECTION) -> dict[str, Any] | None:
        """Return nothing, as `get`."""
        return None

    def put(self, key: str, val: dict[str, Any], collection: str = COLLECTION) -> None:
        """Keep nothing: `fill` has stored the vector already."""

    async def aput(self, key: str, val: dict[str, Any], collection: str = COLLECTION) -> None:
        """Keep nothing, as `put`."""

    def get_all(self, collection: str = COLLECTION) -> dict[str, dict[str, Any]]:
        """Return what the real store holds."""
        return self.store.get_all(collection=collection)

    async def aget_all(self, collection: str = COLLECTION) -> dict[str, dict[str, Any]]:
        """Return what the real store holds."""
        return await self.store.aget_all(collection=collection)

    def delete(self, key: str, collection: str = COLLECTION) -> bool:
        """Delete from the real store."""
        return self.store.delete(key, collection=collection)

    async def adelete(self, key: str, collection: str = COLLECTION) -> bool:
        """Delete from the real store."""
        return await self.store.adelete(key, collection=collection)


def cache_keys(embedder: Embedder, texts: Sequence[str], role: Literal["query", "document"]) -> list[str]:
    """Return a key per text over the embedder's fingerprint, the role, and the string and pictures that the model gets.

    A digest: some stores limit a key's length or letters, and texts stay out of listings of keys.
    """
    fingerprint = embedder.fingerprint
    keys = []
    for place, text in enumerate(texts):
        # `render` takes one input, and its errors name no place.
        held = content(carried(text), f"texts[{place}]", embedder.spec, index=place)
        with placed([place]):
            rendered = embedder.render(held, role=role, title=title_of(text))
        # Of one length each, and before the text, which may hold anything.
        seen = "".join(f"{image.digest.hex()}\0" for image in _images(text))
        said = f"{fingerprint}\0{role}\0{seen}{rendered}".encode("utf-8", "surrogatepass")
        keys.append(f"{role}-{hashlib.sha256(said).hexdigest()}")
    return keys


def _images(text: str) -> Sequence[Image]:
    return text.images if isinstance(text, PicturedText) else ()


def _entry(vector: list[float]) -> dict[str, Any]:
    # A list of its own: the caller may change the one it gets.
    return {"embedding": list(vector)}


def _vector(entry: object, width: int) -> list[float] | None:
    """Return a copy of an entry's vector. A damaged entry counts as missing: it is computed and stored again."""
    vector = entry.get("embedding") if isinstance(entry, dict) else None
    if not isinstance(vector, list) or len(vector) != width:
        return None
    return list(vector) if all(isinstance(value, float) and math.isfinite(value) for value in vector) else None


def _merged(found: Sequence[list[float] | None], fresh: dict[int, list[float]]) -> Rows:
    return [fresh[place] if vector is None else vector for place, vector in enumerate(found)]
