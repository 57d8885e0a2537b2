"""Getting a model's files: safetensors only, at a pinned commit, through huggingface_hub."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embrief.errors import (
    EmbriefError,
    GatedModelError,
    MissingDependencyError,
    NotEnoughSpaceError,
    UnknownModelError,
    WeightsUnavailableError,
    warn,
)
from embrief.facts.records import TINY_EMBEDDING, TINY_RERANKER
from embrief.facts.specs import EmbeddingSpec, RerankerSpec
from embrief.files.folders import INDEX, SINGLE, missing_files
from embrief.files.foreign import GGUF, is_gguf
from embrief.files.gguf import select
from embrief.system.installed import install_command

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

    from embrief.facts.specs import Artifact, ModelSpec

COMMIT = re.compile(r"[0-9a-f]{40}")
TOKENIZER = "tokenizer.json"
_PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.jinja", "*.model")
# Conversions for other runtimes and training leftovers lie beside the weights in some repositories.
_IGNORED = ("onnx/*", "openvino/*", "*/checkpoint-*", "coreml/*", "original/*", "*.gguf")
# Other number formats of the same weights, and the format that Mistral's own tools read.
_UNREAD = re.compile(r"(.*/)?(model\.\w+(-\d+-of-\d+)?|consolidated[^/]*)\.safetensors")
_MARGIN = 256 * 2**20
_TINY = {EmbeddingSpec: TINY_EMBEDDING, RerankerSpec: TINY_RERANKER}


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model's files come from."""

    id: str
    revision: str | None
    """Commit id, branch or tag; `None` for the default branch."""
    gated: bool = False
    cache_dir: Path | None = None
    local_files_only: bool = False
    code: bool = False
    """Whether to fetch Python files too."""
    modules: bool = False
    """Whether the model is known to have a modules.json, without which its pooling would be a guess."""
    kind: type[ModelSpec] | None = None
    """Whether an embedder or a reranker is wanted, where that is known."""
    files: tuple[str, ...] = ()
    """The files of another format than safetensors, or the tokenizer's alone, by their paths in the repository; empty
    for safetensors."""
    gguf: str | None = None
    """The number format of the one GGUF file that is wanted, whatever it is called; `None`: none is."""
    model: str = ""
    """The model's own id, where the repository has another."""

    @property
    def what(self) -> str:
        """Return what is asked for, for messages."""
        return "tokenizer" if self.files == (TOKENIZER,) else "weights"

    @property
    def command(self) -> str:
        """Return the command that gets it."""
        if self.gguf is not None:
            return f"embrief pull {self.model} --backend gguf --dtype {self.gguf}"
        return f"embrief pull {self.id}{' --tokenizer' if self.what == 'tokenizer' else ''}"

    @classmethod
    def of_tokenizer(
        cls, name: str, spec: ModelSpec | None, *, revision: str | None = None, cache_dir: Path | None = None
    ) -> ModelSource:
        """Return the source of a model's tokenizer.json alone, which counts and cuts texts for servers."""
        if spec is None:
            return cls(name, revision, cache_dir=cache_dir, files=(TOKENIZER,))
        return cls(spec.id, revision or spec.revision, spec.gated, cache_dir, kind=type(spec), files=(TOKENIZER,))

    @classmethod
    def of(
        cls,
        name: str,
        spec: ModelSpec | None,
        *,
        revision: str | None = None,
        cache_dir: Path | None = None,
        local_files_only: bool = False,
        code: bool = False,
        kind: type[ModelSpec] | None = None,
        artifact: Artifact | None = None,
    ) -> ModelSource:
        """Return the source of a model by its record, or by its name on the hub if it has none.

        With an artifact of another format than safetensors it is the source of that.
        """
        if artifact is not None and not artifact.is_safetensors:
            gated = spec is not None and spec.gated and artifact.repo == spec.id
            return cls(
                artifact.repo,
                artifact.revision,
                gated,
                cache_dir,
                local_files_only,
                files=artifact.files,
                kind=kind,
                gguf=artifact.dtype if artifact.format == "gguf" and not artifact.files else None,
                model=name,
            )
        if spec is None:
            return cls(name, revision, False, cache_dir, local_files_only, code, False, kind)
        modules, kind = isinstance(spec, EmbeddingSpec), type(spec)
        return cls(spec.id, revision or spec.revision, spec.gated, cache_dir, local_files_only, code, modules, kind)


@dataclass(frozen=True, slots=True)
class CachedModel:
    """One model revision on this machine, weights included."""

    id: str
    revision: str
    folder: Path
    size: int
    """Bytes on disk."""


def _hub() -> Any:
    try:
        # Inside the function: importing it takes a noticeable part of a second.
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ImportError as error:
        raise _no_hub() from error
    return huggingface_hub


def _no_hub() -> MissingDependencyError:
    return MissingDependencyError(
        f"getting models needs huggingface_hub: {install_command('torch')}; to use models on servers alone: "
        f"{install_command('servers')}"
    )


def cache_folder(cache_dir: Path | None) -> Path:
    """Return the folder in which huggingface_hub keeps its downloads."""
    if cache_dir is not None:
        return cache_dir
    try:
        # Not all that a download needs: listing models must come at once.
        from huggingface_hub import constants
    except ImportError as error:
        raise _no_hub() from error
    return Path(constants.HF_HUB_CACHE)


def _repository_folder(model: str, cache_dir: Path | None) -> Path:
    return cache_folder(cache_dir) / f"models--{model.replace('/', '--')}"


def cached_file(model: str, revision: str, name: str) -> Path | None:
    """Return one file of a model at a commit if it is in the hub's cache on this machine."""
    try:
        file = _repository_folder(model, None) / "snapshots" / revision / name
    except MissingDependencyError:
        return None
    return file if COMMIT.fullmatch(revision) and file.is_file() else None


def gguf_files(source: ModelSource, folder: Path) -> tuple[str, ...]:
    """Return the GGUF file that is wanted, or its parts, as paths in the folder.

    Raises:
        WeightsUnavailableError: It is not there.
    """
    names = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    return select(names, source.gguf or "", source.id)


def _missing(source: ModelSource, folder: Path) -> list[str]:
    if source.gguf is not None:
        try:
            gguf_files(source, folder)
        except WeightsUnavailableError:
            return [f"a GGUF file in {source.gguf}"]
        return []
    if source.files:
        return [name for name in source.files if not (folder / name).is_file()]
    missing = missing_files(folder)
    if source.modules and not (folder / "modules.json").is_file():
        missing.append("modules.json")
    return missing


def _is_complete(folder: Path) -> bool:
    try:
        return not missing_files(folder)
    except EmbriefError:
        # One damaged download must not hide all others.
        return False


def cached_revisions(model: str, cache_dir: Path | None = None) -> list[CachedModel]:
    """Return the revisions of a model that are complete on this machine, weights and tokenizer included."""
    snapshots = _repository_folder(model, cache_dir) / "snapshots"
    found = sorted(snapshots.iterdir()) if snapshots.is_dir() else []
    return [_cached(model, folder, ["**/*"]) for folder in found if _is_complete(folder)]


def _cached(model: str, folder: Path, patterns: list[str]) -> CachedModel:
    files = {file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}
    return CachedModel(model, folder.name, folder, sum(file.stat().st_size for file in files))


def cached_models(cache_dir: Path | None = None) -> Iterator[CachedModel]:
    """Yield every model revision on this machine, recorded or not."""
    root = cache_folder(cache_dir)
    for folder in sorted(root.glob("models--*--*")):
        yield from cached_revisions(folder.name.removeprefix("models--").replace("--", "/"), cache_dir)


def find_cached(source: ModelSource) -> CachedModel | None:
    """Return the asked revision if it is complete on this machine."""
    revision = _commit(source)
    if source.gguf is not None:
        snapshots = _repository_folder(source.id, source.cache_dir) / "snapshots"
        folders = [snapshots / (revision or "none")]
        if revision != source.revision and snapshots.is_dir():
            # The branch has moved since, and another file was fetched from where it points now.
            folders += sorted(snapshots.iterdir())
        folder = next((folder for folder in folders if not _missing(source, folder)), None)
        return None if folder is None else _cached(source.id, folder, list(gguf_files(source, folder)))
    if source.files:
        folder = _repository_folder(source.id, source.cache_dir) / "snapshots" / (revision or "none")
        return None if _missing(source, folder) else _cached(source.id, folder, list(source.files))
    found = (item for item in cached_revisions(source.id, source.cache_dir) if item.revision == revision)
    return next((item for item in found if not _missing(source, item.folder)), None)


def _commit(source: ModelSource) -> str | None:
    """Return the commit that is asked for, `None` for a branch that was never fetched."""
    revision = source.revision or "main"
    if COMMIT.fullmatch(revision):
        return revision
    reference = _repository_folder(source.id, source.cache_dir) / "refs" / revision
    return reference.read_text("utf-8").strip() if reference.is_file() else None


def _offline(source: ModelSource) -> bool:
    return source.local_files_only or bool(_hub().constants.is_offline_mode())


def _not_here(source: ModelSource, reason: str) -> WeightsUnavailableError:
    others = [item.revision for item in cached_revisions(source.id, source.cache_dir)]
    wanted = f"{source.id} at revision {source.revision or 'main'}"
    partial = _repository_folder(source.id, source.cache_dir) / "snapshots" / (_commit(source) or "none")
    if partial.is_dir() and (missing := _missing(source, partial)):
        remedy = f"a part of it is: {partial} lacks {', '.join(missing)}, which `{source.command}` completes"
    elif source.gguf is None and is_gguf(source.id):
        remedy = f"it is {GGUF}"
    elif others:
        remedy = f"another revision is on this machine: to use it, pass revision={others[0]!r}"
        if len(others) > 1:
            remedy += f" (also here: {', '.join(others[1:])})"
    else:
        fitting = [name for kind, name in _TINY.items() if source.kind and issubclass(source.kind, kind)]
        tiny = " or ".join(map(repr, fitting or _TINY.values()))
        remedy = (
            f"with network access, run `{source.command}` once and copy the cache "
            f"{cache_folder(source.cache_dir)}; without any download, model={tiny} tries the software out "
            "(tiny, English only)"
        )
    are = "is" if source.what == "tokenizer" else "are"
    return WeightsUnavailableError(f"the {source.what} of {wanted} {are} not on this machine and {reason}; {remedy}")


@contextmanager
def _hub_errors(source: ModelSource) -> Iterator[None]:
    """Turn the hub's errors into ours, which say what to do."""
    errors = _hub().errors
    try:
        yield
    except errors.GatedRepoError as error:
        raise _gated(source) from error
    except errors.RevisionNotFoundError as error:
        raise UnknownModelError(f"{source.id} has no revision {source.revision!r} on the hub") from error
    except errors.RepositoryNotFoundError as error:
        if source.gated:
            raise _gated(source) from error
        raise UnknownModelError(
            f"the hub has no model {source.id!r} (or it is private and the token in HF_TOKEN may not see it); "
            "`embrief models` lists the names that are known to work"
        ) from error
    except errors.HfHubHTTPError as error:
        # An HTTP 401 or 403 without the hub's own error header, from a proxy or a mirror for instance.
        if error.response is not None and error.response.status_code in (401, 403):
            raise _gated(source) from error
        raise _not_here(source, f"the hub answered with an error ({type(error).__name__})") from error
    except EmbriefError:
        raise
    except Exception as error:
        if not _is_connection_error(error):
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise WeightsUnavailableError(f"getting {source.id} into the cache failed: {reason}") from error
        raise _not_here(source, f"the hub cannot be reached ({type(error).__name__})") from error


def _describe(source: ModelSource) -> ModelInfo:
    """Ask the hub what the repository holds."""
    with _hub_errors(source):
        info: ModelInfo = _hub().HfApi().model_info(source.id, revision=source.revision, files_metadata=True)
        return info


def _is_connection_error(error: BaseException) -> bool:
    # huggingface_hub moved from requests to httpx; both derive their network errors differently.
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(
        names & {"ConnectionError", "TransportError", "OfflineModeIsEnabled", "Timeout", "LocalEntryNotFoundError"}
    )


def _gated(source: ModelSource) -> GatedModelError:
    return GatedModelError(
        f"access to {source.id} was refused (HTTP 401 or 403): accept its licence at "
        f"https://huggingface.co/{source.id} while logged in, create a token at "
        "https://huggingface.co/settings/tokens and put it into the environment variable HF_TOKEN"
    )


def _check_disk(source: ModelSource, size: int) -> None:
    folder = cache_folder(source.cache_dir).absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < size + _MARGIN:
        raise NotEnoughSpaceError(
            f"{source.id} needs {size / 2**30:.1f} GiB and the disk with the cache {cache_folder(source.cache_dir)} "
            f"has {free / 2**30:.1f} GiB left; free some, or set HF_HOME or cache_dir= to another disk"
        )


def _wanted(info: ModelInfo, source: ModelSource) -> list[Any]:
    if source.gguf is not None:
        chosen = select([item.rfilename for item in info.siblings or ()], source.gguf, source.id)
        return [item for item in info.siblings or () if item.rfilename in chosen]
    if source.files:
        found = [item for item in info.siblings or () if item.rfilename in source.files]
        if absent := sorted(set(source.files) - {item.rfilename for item in found}):
            remedy = (
                "so that texts cannot be counted and cut for it on this machine; its server's own limits hold"
                if source.what == "tokenizer"
                else "which its record names"
            )
            raise WeightsUnavailableError(
                f"{source.id} at revision {source.revision or 'main'} has no {', '.join(absent)}, {remedy}"
            )
        return found
    patterns = (*_PATTERNS, "*.py") if source.code else _PATTERNS

    def matches(name: str, patterns: tuple[str, ...]) -> bool:
        return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)

    names = {item.rfilename for item in info.siblings or ()}
    return [
        item
        for item in info.siblings or ()
        if matches(item.rfilename, patterns)
        and not matches(item.rfilename, _IGNORED)
        and not _is_unread(item.rfilename, names)
    ]


def _is_unread(name: str, names: set[str]) -> bool:
    """Return whether a file holds weights that transformers does not read, as far as names tell."""
    if not name.endswith(".safetensors"):
        return False
    single = name[: name.rfind("/") + 1] + SINGLE
    return name != single if single in names else _UNREAD.fullmatch(name) is not None


def fetch(source: ModelSource) -> CachedModel:
    """Return the model's files, downloading what is missing.

    Args:
        source: Which model, and where to keep it.

    Raises:
        WeightsUnavailableError: Not on this machine, and offline or the repository has no safetensors weights.
        GatedModelError: The licence is not accepted or the token is missing.
        UnknownModelError: The hub has no such repository or revision.
        NotEnoughSpaceError: The disk is too full. Nothing was downloaded.
    """
    cached = find_cached(source)
    # Of a branch with GGUF files, what was fetched first stays.
    pinned = source.gguf is not None or (source.revision is not None and COMMIT.fullmatch(source.revision) is not None)
    if cached is not None and (pinned or _offline(source)):
        return cached
    if _offline(source):
        how = "local_files_only=True" if source.local_files_only else "HF_HUB_OFFLINE=1"
        raise _not_here(source, f"downloading is switched off ({how})")
    try:
        info = _describe(source)
    except WeightsUnavailableError as error:
        if cached is None:
            raise
        # A branch, and nobody to ask where it points today.
        warn(f"{error.__cause__!r}; using {source.id} as it was fetched before ({cached.revision})", UserWarning)
        return cached
    wanted = _wanted(info, source)
    if (
        not source.files
        and source.gguf is None
        and not any(Path(item.rfilename).name in (SINGLE, INDEX) and "Dense" not in item.rfilename for item in wanted)
    ):
        raise WeightsUnavailableError(
            f"{source.id} at revision {source.revision or 'main'} has no safetensors weights ({SINGLE}, or shards with "
            "their index), and other formats can run code when loaded; pass revision= with a commit that has them, or "
            "convert the model and pass its folder"
        )
    here = find_cached(replace(source, revision=info.sha))
    missing = sum(item.size or 0 for item in wanted) if here is None else 0
    _check_disk(source, missing)
    folder = _download(source, str(info.sha), [item.rfilename for item in wanted])
    # An index may name files that by their names nobody reads.
    names = _missing(source, folder)
    if lacking := [item for item in info.siblings or () if item.rfilename in names]:
        _check_disk(source, sum(item.size or 0 for item in lacking))
        _download(source, str(info.sha), [item.rfilename for item in lacking])
    with _hub_errors(source):
        _remember_reference(source, str(info.sha))
    found = find_cached(replace(source, revision=info.sha))
    if found is None:
        raise WeightsUnavailableError(
            f"{source.id} was downloaded to {folder} and lacks {', '.join(_missing(source, folder))}; this "
            "repository does not hold a complete model in safetensors"
        )
    return found


def _download(source: ModelSource, commit: str, names: list[str]) -> Path:
    with _hub_errors(source):
        folder = _hub().snapshot_download(
            source.id,
            revision=commit,
            cache_dir=os.fspath(source.cache_dir) if source.cache_dir is not None else None,
            allow_patterns=names,
        )
    return Path(folder)


def _remember_reference(source: ModelSource, commit: str) -> None:
    """Write down which commit a branch pointed to, so that the same call works offline."""
    revision = source.revision or "main"
    if not COMMIT.fullmatch(revision):
        reference = _repository_folder(source.id, source.cache_dir) / "refs" / revision
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(commit, "utf-8")
