"""The files of a model folder: which count, whether they are complete, and a name for their content."""

from __future__ import annotations

import hashlib
import json
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from embrief.errors import WeightsUnavailableError
from embrief.json_files import JsonObject, read_object, read_objects

if TYPE_CHECKING:
    from pathlib import Path

_INDEX = "model.safetensors.index.json"
_TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "vocab.json",
)
_SUFFIXES = (".json", ".safetensors", ".model", ".txt")
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

Stamp = tuple[tuple[str, int, int], ...]


def read_modules(folder: Path) -> list[tuple[str, str]] | None:
    """Return (class, path) of each module in modules.json, `None` without that file.

    Raises:
        ModelMismatchError: The file is not what sentence-transformers writes.
    """
    file = folder / "modules.json"
    if not file.exists():
        return None
    entries = read_objects(file)
    return [(_due(entry, "type"), _due(entry, "path")) for entry in entries]


def _due(entry: JsonObject, key: str) -> str:
    """Return a string that a module must have."""
    value = entry.text(key)
    if value is None:
        entry.refuse(key, "a string")
    return value


def transformer_folder(folder: Path) -> Path:
    """Return where config, tokenizer and weights are: the folder itself, or that of its Transformer module."""
    for kind, path in read_modules(folder) or ():
        if kind.rpartition(".")[2] == "Transformer":
            return folder / path
    return folder


def missing_files(folder: Path) -> list[str]:
    """Return what a model folder lacks: weights (pickled ones do not count), configuration, tokenizer, modules."""
    base = transformer_folder(folder)
    missing = [] if (base / "config.json").is_file() else ["config.json"]
    if not any((base / name).is_file() for name in _TOKENIZERS):
        missing.append("tokenizer.json")
    missing += _missing_weights(base)
    for kind, path in read_modules(folder) or ():
        name = kind.rpartition(".")[2]
        if name in ("Pooling", "Dense", "LogitScore") and not (folder / path / "config.json").is_file():
            missing.append(f"{path}/config.json")
        if name == "Dense" and not (folder / path / "model.safetensors").is_file():
            missing.append(f"{path}/model.safetensors")
    return missing


def _missing_weights(base: Path) -> list[str]:
    index = base / _INDEX
    if index.is_file():
        try:
            shards = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError):
            return [_INDEX]
        return [shard for shard in sorted(shards) if not (base / shard).is_file()] or ([] if shards else [_INDEX])
    return [] if (base / "model.safetensors").is_file() else ["model.safetensors"]


def _files(folder: Path) -> list[Path]:
    """Return the files that make the model, in a stable order: of the folder itself and of its modules."""
    places = {folder, *(folder / path for _, path in read_modules(folder) or ())}
    files = (file for place in places if place.is_dir() for file in place.iterdir())
    return sorted(file for file in files if file.suffix in _SUFFIXES and file.is_file())


def stamp(folder: Path) -> Stamp:
    """Return names, sizes and times: a model saved again to the same folder is another model."""
    found = ((file, file.stat()) for file in _files(folder))
    return tuple((file.relative_to(folder).as_posix(), stat.st_size, stat.st_mtime_ns) for file, stat in found)


def weights_digest(folder: Path) -> str:
    """Return `sha256:...` over all that moves a vector: every tensor, the tokenizer, the configuration.

    Reads all weights, about a second for 1 to 2 GB, once per process as long as the files stay the same.

    Raises:
        WeightsUnavailableError: The folder has no safetensors file.
    """
    if not any(file.suffix == ".safetensors" for file in _files(folder)):
        raise WeightsUnavailableError(f"the folder {folder} holds no *.safetensors file")
    return _digest(folder, stamp(folder))


@lru_cache(maxsize=64)
def _digest(folder: Path, known: Stamp) -> str:
    digest = hashlib.sha256()
    for name, _, _ in known:
        file = folder / name
        if file.suffix == ".safetensors":
            content = _tensors(file)
        elif file.name == "config.json":
            content = json.dumps(_lasting(read_object(file)), sort_keys=True).encode()
        elif file.name in (*_TOKENIZERS, "merges.txt"):
            content = hashlib.sha256(file.read_bytes()).digest()
        else:
            # Prompts are part of the space by themselves; the rest moves no vector.
            continue
        # The path counts: two Dense layers swapped are another model.
        digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    return "sha256:" + digest.hexdigest()


def _lasting(config: JsonObject) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in _VOLATILE}


def _tensors(file: Path) -> bytes:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
        # Saving again may change the metadata; it does not change a vector.
        header.pop("__metadata__", None)
        digest.update(json.dumps(header, sort_keys=True).encode())
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.digest()
