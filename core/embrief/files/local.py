"""A model that lies on this machine, in whatever form of files: what has to be known of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal

from embrief.facts.space import LOCAL

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from embrief.facts.specs import Artifact, EmbeddingSpec, ModelSpec, RerankerSpec
    from embrief.files.folders import Stamp
    from embrief.files.model_files import ModelFiles

    EmbedderFamily = Callable[[str], EmbeddingSpec | None]
    RerankerFamily = Callable[[str], RerankerSpec | None]
    """The record that stands for all models of an architecture, if there is one."""


class LocalModel(ABC):
    """A model on this machine. Making one reads nothing."""

    def __init__(self, path: Path, *, trusted: bool = False) -> None:
        self.path = path
        """The folder, or the file."""
        self.trusted = trusted
        """Whether modules of other packages may be named."""

    @classmethod
    @abstractmethod
    def recognises(cls, path: Path) -> bool:
        """Return whether this form of files is there."""

    @property
    def folder(self) -> Path:
        """Return where the names of an artifact's files begin."""
        return self.path

    @property
    def files(self) -> ModelFiles | None:
        """Return the small files beside safetensors, `None` for another form.

        Raises:
            WeightsUnavailableError, ModelMismatchError: They are missing or damaged.
        """
        return None

    @property
    def origin(self) -> str:
        """Return what a space calls the model: that it is local, or the id of the model whose vectors it makes."""
        return LOCAL

    @property
    def label(self) -> str:
        """Return the name that a space shows people."""
        return self.path.name

    @property
    def like(self) -> str | None:
        """Return the id of the record whose model the files say that they are; `None`: they name none."""
        return None

    @property
    def prompts_from(self) -> Literal["folder", "family", "record"]:
        """Return who says what stands around a text."""
        return "family"

    def unused_prompts(self, spec: ModelSpec) -> list[str]:
        """Return the names of prompts in the files that nothing uses."""
        return []

    @abstractmethod
    def check(self) -> None:
        """Refuse what is incomplete.

        Raises:
            WeightsUnavailableError: The message lists what is missing.
            ModelMismatchError: A file is damaged.
        """

    @abstractmethod
    def stamp(self) -> Stamp:
        """Return names, sizes and times of all files that count."""

    @abstractmethod
    def check_unchanged(self, known: Stamp) -> None:
        """Refuse files that are not those of an earlier `stamp`.

        Raises:
            ModelMismatchError: They are others.
        """

    @abstractmethod
    def weights(self, artifact: Artifact | None) -> str:
        """Return what names the weights in a space.

        Args:
            artifact: The files that the runtime reads, `None` if it reads none.

        Raises:
            WeightsUnavailableError, ModelMismatchError: A file is missing or damaged.
        """

    @abstractmethod
    def embedder(self, family: EmbedderFamily, like: EmbeddingSpec | None) -> EmbeddingSpec:
        """Describe the embedding model in the files.

        Args:
            family: The record that stands for all models of an architecture.
            like: The record that the caller named instead.

        Raises:
            AmbiguousModelError: The files fit several kinds of model.
            ModelMismatchError: It is a model of another kind, or one that cannot be described.
        """

    @abstractmethod
    def reranker(self, family: RerankerFamily, like: RerankerSpec | None) -> RerankerSpec:
        """Describe the reranker in the files. Arguments and errors are those of `embedder`."""
