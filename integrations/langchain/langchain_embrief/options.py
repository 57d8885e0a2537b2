"""The options that all classes take, as read-only pydantic fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, InstanceOf, field_serializer

from embrief import Embedder, Reranker, RuntimeOptions
from embrief.wrapping import changed, written_backend


class Configured(BaseModel):
    """Base of all classes: what was configured, as plain read-only values, without the model."""

    # Frozen: a field that could be assigned would no longer say what the loaded model does.
    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    """A recorded name (`embrief models` lists them), a folder, or an id on the hub."""
    backend: str | InstanceOf[RuntimeOptions] | None = None
    """The runtime, by its name or its options; by default the best installed one that serves the model."""
    revision: str | None = None
    """Commit on the hub; by default the recorded one."""
    instruction: str | None = None
    """What queries are for, in a sentence. `None`: the model's default; `""`: none."""
    device: str = "auto"
    """`"auto"`, `"cpu"`, `"cuda"`, `"cuda:<n>"` or `"mps"`."""
    dtype: str = "auto"
    """`"auto"`, `"float32"`, `"bfloat16"`, `"float16"`, `"int8"`, or a name that a runtime has for its own."""
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
    max_pixels: int | None = None
    """Largest area, height times width, in which a model that takes pictures sees one; by default its record's."""
    special_tokens: Literal["parsed", "text"] | None = None
    """How the names of special tokens in a text are read: as those tokens, or as letters; by default as recorded."""

    @field_serializer("backend")
    def _write_backend(self, backend: str | RuntimeOptions | None) -> str | dict[str, Any] | None:
        return written_backend(backend)

    def _values(self) -> dict[str, Any]:
        """Return the fields as they are; `model_dump` writes down less of a runtime's options."""
        return {name: getattr(self, name) for name in type(self).model_fields}

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy on the same loaded model. An update is checked and takes effect.

        Args:
            update: Fields to change.
            deep: No difference: fields are plain values, and weights are never copied.

        Raises:
            EmbriefError: An update cannot work, as in the constructor; or it asks for another model, runtime or device
                of a facade that was not made by name, such as a fallback.
        """
        if not update:
            return super().model_copy(deep=deep)
        facade, left = changed(self._facade, update)
        if facade is None:
            return type(self)(**{**self._values(), **update})
        settings = facade.settings.values()
        own = {name: value for name, value in self._values().items() if name not in settings}
        keyword = "embedder" if isinstance(facade, Embedder) else "reranker"
        made: Any = type(self)
        copy: Self = made(**{keyword: facade, **own, **left})
        return copy

    @property
    def _facade(self) -> Embedder | Reranker:
        """What does the work."""
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        # pydantic's compares private attributes too, and two facades with equal settings are two objects.
        if not isinstance(other, Configured):
            return NotImplemented
        return type(self) is type(other) and self._values() == other._values()

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in self._values().items():
            if name == "model" or value != type(self).model_fields[name].default:
                yield name, value
