"""The files of a model folder: which count, whether they are complete, and a name for their content."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from embrief.errors import ModelMismatchError, WeightsUnavailableError
from embrief.files.config_keys import WITH_PICTURES, architecture
from embrief.files.image_files import FILE as PREPROCESSOR
from embrief.files.image_files import has_image_settings
from embrief.files.json_files import LARGE, JsonObject, optional_object, read_object, reads_folder
from embrief.files.modules import read_modules, stays_inside, transformer_folder, unusual
from embrief.files.quantised import refuse_quantised
from embrief.files.tensors import StoredTensor, read_header, read_tensors

_OWN = (Path(__file__).parents[1] / "facts" / "records").resolve()
"""Where the models are that come with this package."""
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
# What transformers looks for before either of them.
_OF_ONE_PROCESS = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")
_TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "vocab.json",
)
_SUFFIXES = (".json", ".model", ".txt", ".py")
# Modules of sentence-transformers without weights of their own.
_WEIGHTLESS = ("Transformer", "Pooling", "Normalize", "Dropout", "LogitScore")
# What transformers writes anew each time it saves, or what only says how to run; none of it moves a vector.
_VOLATILE = {
    "transformers_version",
    "_name_or_path",
    "dtype",
    "torch_dtype",
    "use_cache",
    "architectures",
    "__version__",
}
_CHUNK = 2**20

Stamp = tuple[tuple[str, int, int, int], ...]


@reads_folder
def _takes_pictures(base: Path) -> bool:
    try:
        return architecture(optional_object(base / "config.json")) in WITH_PICTURES
    except ModelMismatchError:
        # A damaged file is not a missing one, and whoever reads it next says so.
        return False


def missing_files(folder: Path) -> list[str]:
    """Return what a model folder lacks: weights (pickled ones do not count), configuration, tokenizer, modules.

    Raises:
        ModelMismatchError: A file that names others is damaged, or leads out of the folder.
    """
    base = transformer_folder(folder)
    missing = [] if (base / "config.json").is_file() else ["config.json"]
    if not any((base / name).is_file() for name in _TOKENIZERS):
        missing.append("tokenizer.json")
    if _takes_pictures(base) and not has_image_settings(base):
        missing.append(PREPROCESSOR)
    missing += [file.relative_to(base).as_posix() for file in weight_files(base) if not file.is_file()]
    for module in read_modules(folder) or ():
        kind, place = module.kind, folder / module.path
        if kind in ("Pooling", "Dense", "LayerNorm", "LogitScore") and not (place / "config.json").is_file():
            missing.append(f"{module.path}/config.json")
        # Left alone, sentence-transformers would take a pickle.
        needed = kind in ("Dense", "LayerNorm") or (kind not in _WEIGHTLESS and (place / "pytorch_model.bin").exists())
        if needed and not (place / SINGLE).is_file():
            missing.append(f"{module.path}/{SINGLE}")
    return missing


def weight_files(base: Path) -> list[Path]:
    """Return the files with the weights of a Transformer, by the rule of transformers: one file goes before shards.

    They need not be there.

    Raises:
        ModelMismatchError: The index of the shards is not what transformers writes, or names files elsewhere.
        WeightsUnavailableError: The index or the folder cannot be read.
    """
    index = base / INDEX
    if (base / SINGLE).is_file() or not index.exists():
        return [base / SINGLE]
    return sorted({_shard(base, name, index) for name in _weight_map(index).values()})


def _weight_map(index: Path) -> dict[str, str]:
    places = read_object(index, limit=LARGE).within("weight_map")
    found = {name: place for name in places if (place := places.text(name)) is not None}
    if not found or len(found) < len(places):
        raise ModelMismatchError(f"{index} does not say which file holds which tensor; fetch or save the file again")
    if others := sorted(place for place in found.values() if not place.endswith(".safetensors")):
        raise ModelMismatchError(
            f"{index} names {others[0]!r}, which is no safetensors file; other formats can run code when loaded, so "
            "save the model again with safetensors"
        )
    return found


def _shard(base: Path, name: str, index: Path) -> Path:
    path = base / name
    # A file may be a link: so the hub's cache keeps its own. A folder on the way may not lead out.
    inside = stays_inside(name) and path.parent.resolve().is_relative_to(base.resolve())
    # Models that come with this package share weights, so that none comes twice.
    if not inside and not (base.resolve().parent == _OWN and path.parent.resolve().is_relative_to(_OWN)):
        raise ModelMismatchError(
            f"{index} names {name!r}, which is outside of {base}; what makes a model must lie in its folder"
        )
    try:
        path.is_file()
    except OSError as error:
        raise ModelMismatchError(f"{index} names {name[:80]!r}..., and no file can be called that") from error
    return path


def stored_tensors(base: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a Transformer by name, from the headers of its files.

    Raises:
        WeightsUnavailableError: A file is not there.
        ModelMismatchError: A file is damaged, or the files contradict each other.
    """
    found: dict[str, StoredTensor] = {}
    files = weight_files(base)
    for file in files:
        for name, tensor in read_tensors(file).items():
            if name in found:
                raise ModelMismatchError(
                    f"tensor {name!r} is both in {found[name].file} and in {file}; which one counts is a guess, so "
                    "save the model again"
                )
            found[name] = tensor
    if files != [base / SINGLE]:
        index = base / INDEX
        for name, place in _weight_map(index).items():
            if name not in found or found[name].file != base / place:
                raise ModelMismatchError(
                    f"{index} says that tensor {name!r} is in {place}, and it is not; fetch the files again, or save "
                    "the model again"
                )
    return found


@reads_folder
def check_weights(folder: Path) -> None:
    """Refuse weights that runtimes would read wrongly, before one of them opens the files.

    Raises:
        WeightsUnavailableError: A file is not there.
        ModelMismatchError: A file is damaged, weights are quantised, or a module lacks tensors or has others.
    """
    base = transformer_folder(folder)
    if spare := sorted(file.name for file in base.iterdir() if _OF_ONE_PROCESS.fullmatch(file.name)):
        raise ModelMismatchError(
            f"{base} holds {spare[0]}, a part of a checkpoint that several processes saved, which transformers reads "
            f"instead of {SINGLE}; delete these parts, or save the model again as a whole"
        )
    config = read_object(base / "config.json")
    if (named := config.get("transformers_weights")) is not None:
        raise ModelMismatchError(
            f"'transformers_weights' in {config.file} names {named!r} as the weights, and runtimes differ in whether "
            f"they follow it; rename that file to {SINGLE} and delete the entry"
        )
    refuse_quantised(config, stored_tensors(base), base)
    for module in read_modules(folder) or ():
        file = folder / module.path / SINGLE
        if module.kind not in _WEIGHTLESS and file.is_file():
            tensors = read_tensors(file)
            refuse_quantised({}, tensors, file)
            if (due := _due(module.kind, file.with_name("config.json"))) is not None:
                found = {name: tensor.shape for name, tensor in tensors.items()}
                if found != due:
                    raise ModelMismatchError(
                        f"{file} holds {found}, by the config.json beside it this module has {due}; fetch the files "
                        "again, or save the model again"
                    )


def _due(kind: str, file: Path) -> dict[str, tuple[int, ...]] | None:
    """Return the tensors of a module and their shapes by its config.json, `None` for a kind that is not known here."""
    if kind not in ("Dense", "LayerNorm"):
        return None
    config = read_object(file)
    if kind == "LayerNorm":
        shape = (config.count("dimension") or 0,)
        return {"norm.weight": shape, "norm.bias": shape}
    width, inputs = config.count("out_features") or 0, config.count("in_features") or 0
    due: dict[str, tuple[int, ...]] = {"linear.weight": (width, inputs)}
    if config.flag("bias") is not False:
        due["linear.bias"] = (width,)
    return due


def _files(folder: Path) -> list[Path]:
    """Return the files that make the model, in a stable order: of the folder itself and of its modules."""
    places = {folder, *(folder / module.path for module in read_modules(folder) or ())}
    small = [file for place in places if place.is_dir() for file in place.iterdir() if file.suffix in _SUFFIXES]
    return sorted(file for file in {*small, *_weights(folder)} if file.is_file())


def _weights(folder: Path) -> list[Path]:
    """Return the files whose tensors count."""
    modules = read_modules(folder) or ()
    own = [folder / module.path / SINGLE for module in modules if module.kind not in _WEIGHTLESS]
    return [*weight_files(transformer_folder(folder)), *own]


@reads_folder
def stamp(folder: Path) -> Stamp:
    """Return names, sizes and times: a model saved again to the same folder is another model."""
    found = ((file.relative_to(folder).as_posix(), file.stat()) for file in _files(folder))
    # The time of the last change of any kind cannot be set back, other than that of the last writing. No inode numbers:
    # some network file systems give a file a new one each time.
    return tuple((name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in found)


def check_unchanged(folder: Path, known: Stamp) -> None:
    """Refuse a folder whose files are not those of an earlier `stamp`.

    Raises:
        ModelMismatchError: They are others.
    """
    now = stamp(folder)
    if changed := sorted({name for name, *_ in {*now} ^ {*known}}):
        raise ModelMismatchError(
            f"{folder} changed since its facts were read ({', '.join(changed)}): its vectors would not belong to the "
            "space that was named. When all its files are written, make a new embedder or reranker"
        )


@reads_folder
def weights_digest(folder: Path) -> str:
    """Return `sha256:...` over all that moves a vector: every tensor, the tokenizer, the configuration.

    Reads all weights, about a second for 1 to 2 GB, once per process as long as the files stay the same.

    Raises:
        WeightsUnavailableError: A file with weights is not there.
        ModelMismatchError: One is damaged.
    """
    if missing := [file for file in weight_files(transformer_folder(folder)) if not file.is_file()]:
        raise WeightsUnavailableError(f"{folder} lacks {missing[0].relative_to(folder).as_posix()}")
    return _digest(folder, stamp(folder))


def files_digest(folder: Path, names: Sequence[str]) -> str:
    """Return `sha256:...` over files of another format than safetensors, as they are.

    Raises:
        WeightsUnavailableError: One is not there.
    """
    digest = hashlib.sha256()
    for name in sorted(names):
        try:
            with (folder / name).open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").digest()
        except OSError as error:
            raise WeightsUnavailableError(f"{folder} lacks {name}, or it cannot be read: {error}") from error
        digest.update(name.encode() + b"\0" + content)
    return "sha256:" + digest.hexdigest()


@lru_cache(maxsize=64)
def _digest(folder: Path, known: Stamp) -> str:
    digest = hashlib.sha256()
    for name, *_ in known:
        file = folder / name
        if file.suffix == ".safetensors":
            content = _tensors(file)
        elif file.name == "config.json":
            content = json.dumps(_lasting(read_object(file)), sort_keys=True).encode()
        elif file.name in (*_TOKENIZERS, "merges.txt") or (file.suffix == ".py" and _runs_code(folder)):
            content = hashlib.sha256(file.read_bytes()).digest()
        else:
            # Prompts are part of the space by themselves; the rest moves no vector.
            continue
        # The path counts: two Dense layers swapped are another model.
        digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    if extra := unusual(folder):
        digest.update(json.dumps(extra, sort_keys=True).encode())
    return "sha256:" + digest.hexdigest()


def _runs_code(folder: Path) -> bool:
    """Return whether code that lies in the folder may compute its vectors."""
    base = transformer_folder(folder)
    configs = (optional_object(base / name) for name in ("config.json", "tokenizer_config.json"))
    return any("auto_map" in config for config in configs) or any(
        module.foreign for module in read_modules(folder) or ()
    )


def _lasting(config: JsonObject) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in _VOLATILE}


def _tensors(file: Path) -> bytes:
    # A damaged file has no name for its content.
    read_tensors(file)
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        digest.update(json.dumps(read_header(stream, file), sort_keys=True).encode())
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.digest()
