"""A cheap, content-based name for the weights in a folder."""

from __future__ import annotations

import hashlib
import json
import struct
from functools import lru_cache
from typing import TYPE_CHECKING

from embrief.errors import WeightsUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

_BLOCK = 4096


def folder_weights(folder: Path) -> str:
    """Return `sha256:...` over the safetensors headers, a block of every tensor, and the tokenizer.

    Reading all of a large model would take longer than loading it. Training or merging changes every tensor it touches
    throughout, so a block from the middle of each tensor tells two models apart.

    Raises:
        WeightsUnavailableError: The folder has no safetensors file.
    """
    files = sorted(folder.rglob("*.safetensors"))
    if not files:
        raise WeightsUnavailableError(f"the folder {folder} holds no *.safetensors file")
    stamps = tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in [*files, *_extra_files(folder)])
    return _digest(folder, stamps)


def _extra_files(folder: Path) -> list[Path]:
    return [file for name in ("tokenizer.json", "tokenizer.model", "vocab.txt") if (file := folder / name).is_file()]


@lru_cache(maxsize=64)
def _digest(folder: Path, stamps: tuple[tuple[Path, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for file, *_ in stamps:
        # The path inside the folder counts: two Dense layers swapped are another model.
        digest.update(f"{file.relative_to(folder).as_posix()}\0".encode())
        if file.suffix == ".safetensors":
            _digest_tensors(file, digest)
        else:
            digest.update(file.read_bytes())
    return "sha256:" + digest.hexdigest()


def _digest_tensors(file: Path, digest: hashlib._Hash) -> None:
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = stream.read(length)
        tensors = json.loads(header)
        # Saving again may change the metadata; it does not change a vector.
        tensors.pop("__metadata__", None)
        digest.update(json.dumps(tensors, sort_keys=True).encode())
        for name in sorted(tensors):
            start, end = tensors[name]["data_offsets"]
            stream.seek(8 + length + start + max(0, (end - start - _BLOCK) // 2))
            digest.update(stream.read(min(_BLOCK, end - start)))
