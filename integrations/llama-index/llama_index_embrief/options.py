"""The options that all classes take, as read-only pydantic fields, and the facade behind them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypedDict, TypeVar

from llama_index.core.bridge.pydantic import BaseModel, ConfigDict, Field, field_serializer

from embrief import Embedder, Reranker
from embrief.stores import refuse_cache, refuse_code, refuse_server, stored_model
from embrief.wrapping import EmbedderOptions, RerankerOptions, changed, choose_facade, recorded_id, written_backend

if TYPE_CHECKING:
    from pathlib import Path

    from llama_index.core.callbacks import CallbackManager
    from llama_index.core.storage.kvstore.types import BaseKVStore

F = TypeVar("F", Embedder, Reranker)
_NONE: Mapping[str, Any] = MappingProxyType({})


class FrameworkOptions(TypedDict, total=False):
    """LlamaIndex's own keyword of all classes."""

    callback_manager: CallbackManager | None


class EmbeddingOptions(EmbedderOptions, FrameworkOptions, total=False):
    """Keywords of the embeddings' constructors; `EmbriefEmbedding` and `BaseEmbedding` say what they mean."""

    title_metadata_key: str | None
    embed_batch_size: int
    num_workers: int | None
    embeddings_cache: BaseKVStore | None
    rate_limiter: Any


class RerankOptions(RerankerOptions, FrameworkOptions, total=False):
    """Keywords of the reranker's constructor; `Qwen3Rerank` says what they mean."""


class Configured(BaseModel):
    """Base of all classes: what was configured, as plain values, without the model."""

    model_config = ConfigDict(arbitrary_types_allowed=True, protected_namespaces=())

    # Each is frozen: a field that could be assigned would no longer say what the loaded model does. Not the
    # whole class, since LlamaIndex assigns `callback_manager`.
    # `Any`: pydantic would build the options anew, as their base class.
    backend: Any = Field(default=None, frozen=True)
    """The runtime, by its name or its options; by default the best installed one that serves the model."""
    revision: str | None = Field(default=None, frozen=True)
    """Commit on the hub; by default the recorded one."""
    instruction: str | None = Field(default=None, frozen=True)
    """What queries are for, in a sentence. `None`: the model's default; `""`: none."""
    device: str = Field(default="auto", frozen=True)
    """`"auto"`, `"cpu"`, `"cuda"`, `"cuda:<n>"` or `"mps"`."""
    dtype: str = Field(default="auto", frozen=True)
    """`"auto"`, `"float32"`, `"bfloat16"`, `"float16"`, `"int8"`, or a name that a runtime has for its own."""
    max_tokens: int | None = Field(default=None, frozen=True)
    """Tokens per text or pair that reach the model; by default what the model's authors use."""
    truncate: Literal["warn", "error", "silent"] = Field(default="warn", frozen=True)
    """What to do with a longer text: cut its end off with a warning or silently, or raise."""
    batch_tokens: int | None = Field(default=None, frozen=True)
    """Tokens per batch, padding included; by default chosen for the device."""
    cache_dir: str | None = Field(default=None, frozen=True)
    """Where downloads are kept; by default huggingface_hub's folder."""
    local_files_only: bool = Field(default=False, frozen=True)
    """Never ask the network."""
    trust_remote_code: bool = Field(default=False, frozen=True)
    """Run code that comes with the model. Needs a full commit id as `revision`."""
    like: str | None = Field(default=None, frozen=True)
    """For a model without a record: the record to take prompts and limits from."""
    max_pixels: int | None = Field(default=None, frozen=True)
    """Largest area, height times width, in which a model that takes pictures sees one; by default its record's."""
    special_tokens: Literal["parsed", "text"] | None = Field(default=None, frozen=True)
    """How the names of special tokens in a text are read: as those tokens, or as letters; by default as recorded."""

    _model_field: ClassVar[str]
    """Name of the field that holds the model: LlamaIndex has two conventions."""
    _other: ClassVar[str]
    """What takes a model of the other kind, with `{model}` in the place of the model."""

    @classmethod
    def _configure(
        cls, kind: type[F], given: F | None, model: str | Path | None, options: Mapping[str, Any]
    ) -> tuple[F, dict[str, Any]]:
        """Return the facade, given or made of the options, and the values of all fields. Loads nothing."""
        field = cls._model_field
        names = {*inspect.signature(kind).parameters, field}
        framework = cls.model_fields.keys() - names
        # `callback_manager=None` and the like: the framework's defaults apply.
        own = {name: value for name, value in options.items() if name in framework and value is not None}
        facade = choose_facade(
            kind,
            given,
            model,
            {name: value for name, value in options.items() if name not in framework},
            default=cls.model_fields[field].default,
            owner=cls.__name__,
            other=cls._other,
            field=field,
            also=sorted(framework),
        )
        values = facade.settings.values()
        return facade, {field: recorded_id(values.pop("model")), **values, **own}

    @field_serializer("backend")
    def _write_backend(self, backend: Any) -> str | dict[str, Any] | None:
        return written_backend(backend)

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Self:
        """Rebuild what `to_dict()` has written down. Whoever could write to the store chose the content.

        Args:
            data: The stored configuration.
            **kwargs: Fields of this program's own, which win: a model from a folder is named here.

        Raises:
            ArgumentError: The model is no recorded one and none at a commit, or code that comes with it would be run,
                or a cache would be used, or texts would go to a server.
            EmbriefError: A value cannot work, as in the constructor.
        """
        where = f"the stored {cls.__name__}"
        if cls._model_field in data and cls._model_field not in kwargs:
            stored_model(data[cls._model_field], data.get("revision"), where=where)
        if "trust_remote_code" not in kwargs:
            refuse_code(data.get("trust_remote_code"), where=where)
        if "backend" not in kwargs:
            refuse_server(data.get("backend"), where=where)
        if "cache" not in kwargs:
            refuse_cache(data.get("cache"), where=where)
        made: Self = super().from_dict(data, **kwargs)  # type: ignore[misc] # LlamaIndex's, behind this class
        return made

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        # What was asked for: with all options and LlamaIndex's objects it would fill a screen.
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if name == self._model_field or (value != field.default and name != "callback_manager"):
                yield name, type(value).__name__ if name == "embeddings_cache" else value

    def _on(self, facade: Embedder | Reranker, changes: Mapping[str, Any] = _NONE) -> Self:
        """Return a twin on another facade, with the same framework options but for those that change."""
        settings = facade.settings.values()
        own = {name: value for name, value in self if name not in settings and name != self._model_field}
        twin: Any = type(self)
        keyword = "embedder" if isinstance(facade, Embedder) else "reranker"
        made: Self = twin(**{keyword: facade, **own, **changes})
        return made

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy on the same loaded model. An update is checked and takes effect.

        Args:
            update: Fields to change.
            deep: Whether the framework's objects (callbacks, cache) are copied; weights never are.

        Raises:
            EmbriefError: An update cannot work, as in the constructor; or it asks for another model, runtime or device
                of a facade that was not made by name, such as a fallback.
        """
        copy = super().model_copy(deep=deep)
        if not update:
            return copy
        facade, left = changed(self._facade, update)
        return type(self)(**{**dict(copy), **update}) if facade is None else copy._on(facade, left)

    @property
    def _facade(self) -> Embedder | Reranker:
        """What does the work."""
        raise NotImplementedError
