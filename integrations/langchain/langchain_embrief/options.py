"""The options that all classes take, as read-only pydantic fields, and the facade behind them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict, TypeVar

from pydantic import BaseModel, ConfigDict

from embrief import ArgumentError, ArgumentTypeError, Embedder, Reranker

if TYPE_CHECKING:
    from pathlib import Path

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


class Configured(BaseModel):
    """Base of all classes: what was configured, as plain read-only values, without the model."""

    # Frozen: a field that could be assigned would no longer say what the loaded model does.
    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    """A recorded name (`embrief models` lists them), a folder, or an id on the hub."""
    backend: str | None = None
    """The runtime; by default the best installed one that serves the model."""
    revision: str | None = None
    """Commit on the hub; by default the recorded one."""
    instruction: str | None = None
    """What queries are for, in a sentence. `None`: the model's default; `""`: none."""
    device: str = "auto"
    """`"auto"`, `"cpu"`, `"cuda"`, `"cuda:<n>"` or `"mps"`."""
    dtype: str = "auto"
    """`"auto"`, `"float32"`, `"bfloat16"` or `"float16"`."""
    max_tokens: int | None = None
    """Tokens per text or pair that reach the model; by default what the model's authors use."""
    truncate: Literal["warn", "error", "silent"] = "warn"
    """What to do with a longer text: cut its end off with a warning or silently, or raise."""
    batch_tokens: int | None = None
    """Tokens per batch, padding included; by default chosen for the device."""
    cache_dir: str | None = None
    """Where downloads are kept; by default huggingface_hub's folder."""
    local_files_only: bool = False
    """Never ask the network."""
    trust_remote_code: bool = False
    """Run code that comes with the model. Needs a full commit id as `revision`."""
    like: str | None = None
    """For a model without a record: the record to take prompts and limits from."""

    @classmethod
    def _facade(cls, kind: type[F], given: F | None, model: str | Path | None, options: Mapping[str, Any]) -> F:
        """Return the facade that was passed, or make one of the options. Loads nothing."""
        keyword = kind.__name__.lower()
        if unknown := sorted(options.keys() - cls.model_fields.keys()):
            known = ", ".join([keyword, *cls.model_fields])
            raise ArgumentTypeError(f"{cls.__name__} has no option {', '.join(unknown)}; it takes {known}")
        if given is None:
            return kind(cls.model_fields["model"].default if model is None else model, **options)
        if not isinstance(given, kind):
            raise ArgumentTypeError(
                f"{keyword} is an embrief.{kind.__name__}, not {type(given).__name__}; a name goes to model="
            )
        if model is not None or options:
            extra = ", ".join([*([] if model is None else ["model"]), *options])
            raise ArgumentError(
                f"{keyword}= has its own options; leave out {extra}, or give them to the {kind.__name__}"
            )
        return given

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy on the same loaded model. An update is checked and takes effect.

        Args:
            update: Fields to change.
            deep: No difference: fields are plain values, and weights are never copied.

        Raises:
            EmbriefError: An update cannot work, as in the constructor.
        """
        return type(self)(**{**self.model_dump(), **update}) if update else super().model_copy(deep=deep)

    def __eq__(self, other: object) -> bool:
        # pydantic's compares private attributes too, and two facades with equal settings are two objects.
        if not isinstance(other, Configured):
            return NotImplemented
        return type(self) is type(other) and self.model_dump() == other.model_dump()

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in self.model_dump().items():
            if name == "model" or value != type(self).model_fields[name].default:
                yield name, value
