"""The options that all classes take, as read-only pydantic fields, and the facade behind them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypedDict, TypeVar

from llama_index.core.bridge.pydantic import BaseModel, ConfigDict, Field

from embrief import ArgumentError, ArgumentTypeError, Embedder, Reranker

if TYPE_CHECKING:
    from pathlib import Path

    from llama_index.core.callbacks import CallbackManager
    from llama_index.core.storage.kvstore.types import BaseKVStore

F = TypeVar("F", Embedder, Reranker)


class Options(TypedDict, total=False):
    """Keywords of every constructor; `Configured` says what they mean."""

    backend: str | None
    revision: str | None
    instruction: str | None
    device: str
    dtype: str
    max_tokens: int | None
    truncate: Literal["warn", "error", "silent"]
    batch_tokens: int | None
    cache_dir: str | Path | None
    local_files_only: bool
    trust_remote_code: bool
    like: str | None
    callback_manager: CallbackManager | None


class EmbedderOptions(Options, total=False):
    """Keywords of the embeddings' constructors; `EmbriefEmbedding` and `BaseEmbedding` say what they mean."""

    dim: int | None
    task: str | None
    normalize: bool
    title_metadata_key: str | None
    embed_batch_size: int
    num_workers: int | None
    embeddings_cache: BaseKVStore | None
    rate_limiter: Any


class Configured(BaseModel):
    """Base of all classes: what was configured, as plain values, without the model."""

    model_config = ConfigDict(arbitrary_types_allowed=True, protected_namespaces=())

    # Each is frozen: a field that could be assigned would no longer say what the loaded model does. Not the
    # whole class, since LlamaIndex assigns `callback_manager`.
    backend: str | None = Field(default=None, frozen=True)
    """The runtime; by default the best installed one that serves the model."""
    revision: str | None = Field(default=None, frozen=True)
    """Commit on the hub; by default the recorded one."""
    instruction: str | None = Field(default=None, frozen=True)
    """What queries are for, in a sentence. `None`: the model's default; `""`: none."""
    device: str = Field(default="auto", frozen=True)
    """`"auto"`, `"cpu"`, `"cuda"`, `"cuda:<n>"` or `"mps"`."""
    dtype: str = Field(default="auto", frozen=True)
    """`"auto"`, `"float32"`, `"bfloat16"` or `"float16"`."""
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

    _model_field: ClassVar[str]
    """Name of the field that holds the model: LlamaIndex has two conventions."""

    @classmethod
    def _configure(
        cls, kind: type[F], given: F | None, model: str | Path | None, options: Mapping[str, Any]
    ) -> tuple[F, dict[str, Any]]:
        """Return the facade, given or made of the options, and the values of all fields. Loads nothing."""
        keyword = kind.__name__.lower()
        field: str = cls._model_field
        if unknown := sorted(options.keys() - cls.model_fields.keys()):
            known = ", ".join([keyword, *cls.model_fields])
            raise ArgumentTypeError(f"{cls.__name__} has no option {', '.join(unknown)}; it takes {known}")
        settings: dict[str, Any] = {
            name: options[name] for name in inspect.signature(kind).parameters if name in options
        }
        # `callback_manager=None` and the like: the framework's defaults apply.
        own = {name: value for name, value in options.items() if name not in settings and value is not None}
        if given is None:
            default = cls.model_fields[field].default
            given = kind(default if model is None else model, **settings)
        elif not isinstance(given, kind):
            raise ArgumentTypeError(
                f"{keyword} is an embrief.{kind.__name__}, not {type(given).__name__}; a name or folder is {field}="
            )
        elif model is not None or settings:
            extra = ", ".join([*([] if model is None else [field]), *settings])
            raise ArgumentError(
                f"{keyword}= has its own options; leave out {extra}, or give them to the {kind.__name__}"
            )
        values = asdict(given.settings)
        return given, {field: values.pop("model"), **values, **own}

    def _on(self, facade: Embedder | Reranker) -> Self:
        """Return a twin on another facade, with the same framework options."""
        settings = asdict(facade.settings)
        own = {name: value for name, value in self if name not in settings and name != self._model_field}
        twin: Any = type(self)
        keyword = "embedder" if isinstance(facade, Embedder) else "reranker"
        made: Self = twin(**{keyword: facade}, **own)
        return made

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy on the same loaded model. An update is checked and takes effect.

        Args:
            update: Fields to change.
            deep: Whether the framework's objects (callbacks, cache) are copied; weights never are.

        Raises:
            EmbriefError: An update cannot work, as in the constructor.
        """
        copy = super().model_copy(deep=deep)
        return type(self)(**{**dict(copy), **update}) if update else copy
