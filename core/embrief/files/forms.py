"""The forms in which a model may lie on this machine. Another form is a file of its own and a place in `FORMS`."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Literal

from embrief.errors import WeightsUnavailableError
from embrief.files.exports import ExportFolder
from embrief.files.folder_prompts import unused_prompts
from embrief.files.folders import check_unchanged, files_digest, missing_files, stamp, weights_digest
from embrief.files.foreign import folder_problem
from embrief.files.gguf import GgufFile
from embrief.files.identify import identify_embedder, identify_reranker
from embrief.files.local import LocalModel
from embrief.files.model_files import ModelFiles, read_files

if TYPE_CHECKING:
    from pathlib import Path

    from embrief.facts.specs import Artifact, EmbeddingSpec, ModelSpec, RerankerSpec
    from embrief.files.folders import Stamp
    from embrief.files.local import EmbedderFamily, RerankerFamily


class SafetensorsFolder(LocalModel):
    """A folder as transformers and sentence-transformers write it."""

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Return whether it is a folder: what else is in it, `check` says."""
        return path.is_dir()

    @cached_property
    def files(self) -> ModelFiles:
        """Return the small files, read once."""
        return read_files(self.path, trusted=self.trusted)

    @property
    def prompts_from(self) -> Literal["folder", "family"]:
        """Return whether the folder has prompts of its own."""
        return "folder" if self.files.prompts is not None else "family"

    def unused_prompts(self, spec: ModelSpec) -> list[str]:
        """Return the names of the folder's prompts that nothing uses."""
        return unused_prompts(self.files, spec)

    def check(self) -> None:
        """Refuse a folder that lacks files."""
        if missing := missing_files(self.path):
            raise WeightsUnavailableError(
                f"{self.path} lacks {', '.join(missing)}: the folder {folder_problem(self.path)}"
            )

    def stamp(self) -> Stamp:
        """Return names, sizes and times: a model saved again to the same folder is another model."""
        return stamp(self.path)

    def check_unchanged(self, known: Stamp) -> None:
        """Refuse a folder that was written again."""
        check_unchanged(self.path, known)

    def weights(self, artifact: Artifact | None) -> str:
        """Return a digest of every tensor, the tokenizer and the configuration; of another format, of its files."""
        if artifact is None or artifact.is_safetensors:
            return weights_digest(self.path)
        return files_digest(self.path, artifact.files)

    def embedder(self, family: EmbedderFamily, like: EmbeddingSpec | None) -> EmbeddingSpec:
        """Describe the embedding model in the folder."""
        return identify_embedder(self.files, family(self.files.architecture), like=like)

    def reranker(self, family: RerankerFamily, like: RerankerSpec | None) -> RerankerSpec:
        """Describe the reranker in the folder."""
        return identify_reranker(self.files, family(self.files.architecture), like=like)


FORMS: tuple[type[LocalModel], ...] = (ExportFolder, GgufFile, SafetensorsFolder)
"""What a path is looked at for, in this order."""


def local_model(path: Path, *, trusted: bool = False) -> LocalModel:
    """Return the model in a folder or file, whatever its form. Reads names only.

    Args:
        path: The folder or file.
        trusted: Whether modules of other packages may be named.

    Raises:
        WeightsUnavailableError: There is nothing there.
    """
    for form in FORMS:
        if form.recognises(path):
            return form(path, trusted=trusted)
    raise WeightsUnavailableError(f"there is no model folder {str(path)!r} any more")
