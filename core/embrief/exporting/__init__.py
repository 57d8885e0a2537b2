"""Models as files for runtimes that need no torch: made, compared with the original, and put in place whole."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from embrief.errors import (
    AmbiguousModelError,
    ArgumentError,
    EmbriefError,
    MissingDependencyError,
    WrongKindError,
)
from embrief.files.exports import ALL_FILES, DTYPES, FILES, ExportFolder
from embrief.files.foreign import folder_of, path_of
from embrief.system.installed import install_command, installed_version, is_installed

if TYPE_CHECKING:
    from embrief.facades.embedder import Embedder
    from embrief.facades.reranker import Reranker

_PACKAGES = {
    "onnx": ("torch", "onnx", "onnxscript", "onnxruntime"),
    "openvino": ("torch", "onnx", "onnxscript", "openvino"),
}
_TOLD = ("embrief", "torch", "transformers", "onnx", "onnxscript", "onnxruntime", "openvino", "nncf")


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was exported."""

    folder: Path
    kind: Literal["embedder", "reranker"]
    format: str
    """`"onnx"` or `"openvino"`."""
    dtype: str
    agreement: float
    """Least cosine with the original's vectors; of a reranker, the most that log-odds were from the original's."""
    size: int
    """Bytes of all files."""


def export_model(
    model: str | Path,
    to: str | Path,
    *,
    format: str = "onnx",
    dtype: str = "float32",
    revision: str | None = None,
    like: str | None = None,
    force: bool = False,
    on_step: Callable[[str], None] | None = None,
) -> ExportReport:
    """Write a model as a folder that runs without torch and transformers: `Embedder(to)` or `Reranker(to)`.

    The vectors are in the model's own space: documents that one of them embedded are found by the other. The graph is
    run beside the original before the folder is put in place.

    Args:
        model: A recorded or configured name, a folder, or an id on the hub, of a model that the engine runs.
        to: The folder to write.
        format: `"onnx"`, or `"openvino"`.
        dtype: `"float32"`, or `"int8"` for the weights of the layers' products.
        revision: The commit on the hub, as of `Embedder`.
        like: The record to take prompts and limits from, for files that leave open what they are; as of `Embedder`.
        force: Whether an export that is there is replaced. Folders that hold anything else never are.
        on_step: Called with a sentence at the beginning of each step.

    Raises:
        ArgumentError: The folder exists, the engine does not run this model, or a value cannot be.
        MissingDependencyError: A package that exports need is not installed.
        ModelMismatchError: The graph's results are not those of the original; nothing is left then.
        NotEnoughSpaceError: The disk is too small.
        EmbriefError: As of `Embedder` and `Reranker`.
    """
    # Inside the function: what only reads exports needs none of it.
    from embrief.exporting.steps import write_export

    if format not in FILES:
        raise ArgumentError(f"format={format!r} cannot be; use one of {', '.join(map(repr, FILES))}")
    if dtype not in DTYPES:
        raise ArgumentError(f"dtype={dtype!r} cannot be exported; use one of {', '.join(map(repr, DTYPES))}")
    # Without dots: what is being written lies beside it, under a name made of its own.
    target = Path(os.path.abspath(path_of(to, "to")))  # noqa: PTH100 - a link stays one, and is refused
    _check_target(target, force=force)
    _check_installed(format, dtype)
    say = on_step or (lambda step: None)
    with _open(str(model), revision, like) as facade:
        if facade.spec.images is not None:
            raise ArgumentError(
                f"{facade.spec.id} reads pictures, and an export would leave out what reads them; run it on the "
                "engine, or export a model of texts"
            )
        partial = target.with_name(f".{target.name}-{secrets.token_hex(4)}.partial")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            partial.mkdir()
            export = write_export(facade, partial, format=format, dtype=dtype, versions=_versions(), say=say)
            size = sum(file.stat().st_size for file in partial.iterdir())
            _put(partial, target, force=force)
        except OSError as error:
            if isinstance(error, EmbriefError):
                raise
            raise ArgumentError(f"{target} cannot be written: {error}") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return ExportReport(target, export.kind, export.format, export.dtype, export.agreement, size)


def _check_target(target: Path, *, force: bool) -> None:
    if not target.exists() and not target.is_symlink():
        return
    if not force:
        raise ArgumentError(f"{target} exists; name another folder, or replace an export that is there with force=True")
    if target.is_symlink() or not ExportFolder.recognises(target):
        raise ArgumentError(f"{target} is no export, and nothing else is replaced; name another folder")
    if others := sorted(entry.name for entry in target.iterdir() if entry.name not in ALL_FILES):
        raise ArgumentError(
            f"{target} holds {others[0]!r}, which is no part of an export and would be lost; move it, or name another "
            "folder"
        )


def _check_installed(format: str, dtype: str) -> None:
    needed = (*_PACKAGES[format], *["nncf"] * (format == "openvino" and dtype == "int8"))
    if missing := [name for name in needed if not is_installed(name)]:
        extra = "export" if format == "onnx" else "export-openvino"
        raise MissingDependencyError(f"an export needs {', '.join(missing)}: {install_command(extra)}")


def _versions() -> dict[str, str]:
    return {name: version for name in _TOLD if (version := installed_version(name)) is not None}


def _open(name: str, revision: str | None, like: str | None) -> Embedder | Reranker:
    """Open the original, on the engine in float32."""
    from embrief.discovery.plugins import plugins
    from embrief.facades.embedder import Embedder
    from embrief.facades.reranker import Reranker
    from embrief.facts.specs import RerankerSpec

    if (folder := folder_of(name)) is not None and ExportFolder.recognises(folder):
        raise ArgumentError(f"{folder} is an export already; export the model that it was made from")

    def opened(kind: type[Embedder] | type[Reranker]) -> Embedder | Reranker:
        return kind(name, backend="engine", device="cpu", dtype="float32", revision=revision, like=like)

    if like is not None and isinstance(plugins().catalog.find_model(like), RerankerSpec):
        return opened(Reranker)
    try:
        embedder = opened(Embedder)
        _ = embedder.spec
    except (WrongKindError, AmbiguousModelError):
        return opened(Reranker)
    return embedder


def _put(partial: Path, target: Path, *, force: bool) -> None:
    """Put a whole folder in place; what was there goes when the new one is there."""
    _check_target(target, force=force)
    old = partial.with_suffix(".old")
    replaced = target.exists()
    if replaced:
        target.rename(old)
    try:
        partial.rename(target)
    except BaseException:
        # Also where somebody interrupts it: what was there is there again.
        if replaced:
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
