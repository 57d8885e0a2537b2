"""Which `Embedder` a `models.Document` means: by its model name, and by its options."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any

from embrief import Embedder, RerankerSpec, plugins
from embrief.errors import ArgumentError, ArgumentTypeError, WrongKindError
from embrief.wrapping import meant, unicode

OPTIONS = ("instruction", "mrl", "task", "title")


class NamedEmbedders:
    """Embedders by name, without regard to case as in fastembed; optionally also every recorded model."""

    def __init__(self) -> None:
        self._embedders: dict[str, Embedder] = {}
        self._records = False

    def add(self, embedders: Embedder | Mapping[str, Embedder] | None) -> None:
        """Add embedders. A name that is taken goes to the new one; `None` adds every recorded model.

        Raises:
            ArgumentTypeError: It is neither, or a name or value of the mapping has the wrong type.
            ArgumentError: A name is empty.
        """
        if embedders is None:
            self._records = True
            return
        if isinstance(embedders, Embedder):
            name = embedders.settings.model
            spec = plugins().catalog.find_model(name)
            embedders = {name: embedders} if spec is None else {name: embedders, spec.id: embedders}
        if not isinstance(embedders, Mapping):
            raise ArgumentTypeError(
                "embedders is an Embedder, a mapping of model name to Embedder, or None, not "
                f"{type(embedders).__name__}"
            )
        given: Mapping[Any, Any] = embedders
        for name, embedder in given.items():
            if not isinstance(name, str) or not isinstance(embedder, Embedder):
                raise ArgumentTypeError(
                    f"embedders maps a model name to an Embedder; {name!r} maps to {type(embedder).__name__}"
                )
            if not name:
                raise ArgumentError(
                    "embedders has an empty name; use the one that models.Document(model=...) will have"
                )
        self._embedders.update({name.lower(): embedder for name, embedder in embedders.items()})

    def find(self, name: str) -> Embedder | None:
        """Return the embedder of this name, `None` for a name that is not ours.

        Raises:
            UnknownModelError: The name is a known mistake; the message names the right one.
            WrongKindError: The name is that of a recorded reranker.
            ArgumentError: The name is that of a model attached by another name only.
        """
        if (found := self._embedders.get(name.lower())) is not None:
            return found
        spec = plugins().catalog.find_model(name)
        if spec is None:
            return None
        if isinstance(spec, RerankerSpec):
            raise WrongKindError(
                f"{spec.id} is a reranker",
                use=f"query_texts(..., reranker=Reranker({spec.id!r}))",
            )
        if (found := self._embedders.get(spec.id.lower())) is None and self._records:
            # Two threads may both come here: facades on one model share it, so either may win.
            found = self._embedders.setdefault(spec.id.lower(), Embedder(spec.id))
        if found is None and (keys := self._keys_of(spec.id)):
            # fastembed may list it, and would embed queries without their prompt.
            raise ArgumentError(
                f"{name!r} is attached to this client as {' and '.join(map(repr, keys))}; use this name in the "
                f"Document, or attach the model by its own: attach(client, Embedder({spec.id!r})), or attach(client) "
                "for all recorded models"
            )
        return found

    @property
    def known(self) -> str:
        """Name what is attached, for messages."""
        names = [repr(name) for name in self._embedders]
        return ", ".join([*names, *(["every recorded model"] if self._records else [])]) or "nothing"

    def _keys_of(self, model: str) -> list[str]:
        find = plugins().catalog.find_model
        return [
            key
            for key, embedder in self._embedders.items()
            if (spec := find(embedder.settings.model)) is not None and spec.id == model
        ]


def view_of(embedder: Embedder, options: object) -> Embedder:
    """Return the embedder whose vectors a document with these options gets.

    Raises:
        ArgumentTypeError: An option has the wrong type.
        ArgumentError: An option is unknown, or does not fit the model.
    """
    given = options_of(options, embedder)
    if (mrl := given.get("mrl")) is not None:
        embedder = embedder.with_dim(mrl)
    # A task may have a document prompt of its own, which makes a space of its own.
    return embedder if (task := given.get("task")) is None else embedder.with_task(task)


def options_of(options: object, embedder: Embedder) -> Mapping[str, Any]:
    """Return the options of a document.

    Raises:
        ArgumentTypeError: An option has the wrong type.
        ArgumentError: An option is unknown.
    """
    if options is None:
        return {}
    # Qdrant's own BM25 options are a class of their own.
    given = options if isinstance(options, Mapping) else dict(vars(options))
    if unknown := sorted(set(given) - set(OPTIONS)):
        raise ArgumentError(
            f"{embedder.settings.model} does not know the options {', '.join(map(repr, unknown))} of a "
            f"Document; it knows {', '.join(map(repr, OPTIONS))}{meant(unknown, OPTIONS, called={'dim': 'mrl'})}"
        )
    for name, value in given.items():
        if value is not None and not isinstance(value, Integral if name == "mrl" else str):
            kind = "a whole number" if name == "mrl" else "a string"
            raise ArgumentTypeError(f"the option {name!r} of a Document is {kind}, not {value!r}")
        unicode(value, f"the option {name!r} of a Document")
    return given
