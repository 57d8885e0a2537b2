"""What safetensors files hold, by their headers: checked to the last byte before anything else opens the file."""

from __future__ import annotations

import json
import math
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from embrief.errors import ModelMismatchError, WeightsUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

# The limit of the safetensors library.
_LONGEST_HEADER = 100_000_000
# The limit of torch.
_MOST_DIMENSIONS = 64
_BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E8M0": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32,
    "C64": 64, "U64": 64, "I64": 64, "F64": 64,
}  # fmt: skip
_BUFFERS = r"(^|\.)(position_ids|token_type_ids|rotary_emb\.inv_freq)$"
BUFFERS = re.compile(_BUFFERS)
"""Names of tensors that older releases of transformers stored and that follow from the configuration."""
BUFFERS_AND_HEADS = re.compile(
    rf"{_BUFFERS}|^(lm_head|cls|predictions|generator_predictions|generator_lm_head|vocab_transform|vocab_layer_norm|"
    r"vocab_projector)\.|^(\w+\.)?pooler\."
)
"""Those, and output layers of language models and their training, which neither a vector nor a classifier passes."""
_REMEDY = "fetch or save the file again"


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor is and what it looks like."""

    file: Path
    dtype: str
    """In the words of the format: `F32`, `BF16`, ..."""
    shape: tuple[int, ...]
    start: int
    """Bytes in front of it in the file."""
    size: int
    """In bytes."""


def read_tensors(file: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a safetensors file by name.

    Raises:
        WeightsUnavailableError: The file is not there, or cannot be read.
        ModelMismatchError: It is damaged: cut short, of another format, or with a header that contradicts the file.
    """
    if not file.is_file():
        raise WeightsUnavailableError(f"{file} is not there; {_REMEDY}")
    try:
        with file.open("rb") as stream:
            length = stream.seek(0, 2)
            stream.seek(0)
            entries = read_header(stream, file)
            start = stream.tell()
    except OSError as error:
        raise WeightsUnavailableError(f"{file} cannot be read ({error.strerror or error}); {_REMEDY}") from error
    found = {name: _tensor(file, name, entry, start) for name, entry in entries.items()}
    end = start
    # Side by side, without gaps: so the format has it.
    for name, tensor in sorted(found.items(), key=lambda item: (item[1].start, item[1].size)):
        if tensor.start != end:
            raise _damaged(file, f"tensor {name[:80]!r} does not begin where the one in front of it ends")
        end += tensor.size
    if end != length:
        raise _damaged(file, f"its tensors end at byte {end}, the file at {length}")
    return found


def read_header(stream: BinaryIO, file: Path) -> dict[str, Any]:
    """Return what the header of an open file says of each tensor; the tensors' bytes are what is read next.

    Raises:
        ModelMismatchError: It has none.
    """
    opening = stream.read(8)
    if len(opening) < 8:
        raise _damaged(file, f"it has {len(opening)} bytes")
    if opening == b"version ":
        raise _damaged(file, "it is what Git LFS puts in the place of a large file")
    (size,) = struct.unpack("<Q", opening)
    if size > _LONGEST_HEADER or len(header := stream.read(size)) < size:
        raise _damaged(file, f"by its first bytes it has a header of {size} bytes")
    try:
        entries = json.loads(header.decode("utf-8"), object_pairs_hook=_unique)
    except RecursionError as error:
        raise _damaged(file, "its header nests too deeply") from error
    except ValueError as error:
        raise _damaged(file, f"its header is not JSON ({error})") from error
    if not isinstance(entries, dict):
        raise _damaged(file, "its header is no JSON object")
    # Free text, which moves no vector.
    notes = entries.pop("__metadata__", None) or {}
    if not isinstance(notes, dict) or not all(isinstance(note, str) for note in notes.values()):
        raise _damaged(file, "the metadata in its header are no strings")
    return entries


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice")
    return found


def _tensor(file: Path, name: str, entry: Any, start: int) -> StoredTensor:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _damaged(file, f"its header does not describe tensor {name[:80]!r}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise _damaged(file, f"tensor {name[:80]!r} is of an unknown type")
    if not _counts(shape, _MOST_DIMENSIONS) or not _counts(offsets, 2) or len(offsets) < 2:
        raise _damaged(file, f"tensor {name[:80]!r} has no shape, or no place in the file")
    size = offsets[1] - offsets[0]
    if size * 8 != math.prod(shape) * _BITS[dtype]:
        due = f"{dtype} {str(shape)[:80]}"
        raise _damaged(file, f"tensor {name[:80]!r} has {size} bytes, which is not the size of {due}")
    return StoredTensor(file, dtype, tuple(shape), start + offsets[0], size)


def _counts(value: Any, most: int) -> bool:
    return (
        isinstance(value, list) and len(value) <= most and all(type(one) is int and 0 <= one < 2**63 for one in value)
    )


def _damaged(file: Path, problem: str) -> ModelMismatchError:
    return ModelMismatchError(f"{file} is no complete safetensors file: {problem}; {_REMEDY}")
