"""Tensors from safetensors files, a few at a time, so that loading needs little more memory than the model itself."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from embrief.errors import ModelMismatchError
from embrief.files.folders import stored_tensors
from embrief.system import exiting

if TYPE_CHECKING:
    import re
    from io import FileIO
    from pathlib import Path

    from embrief.files.tensors import StoredTensor

# The same decoder is stored alone, or inside a language model or a sentence-transformers module.
_PREFIXES = ("", "model.", "language_model.", "model.language_model.", "auto_model.")


# What `check_weights` lets through.
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class Checkpoint:
    """The tensors of one folder, whether in one file or in shards, with or without a prefix in front of the names."""

    def __init__(self, folder: Path, label: str) -> None:
        """Read the names.

        Args:
            folder: Where the safetensors files are.
            label: The model's name, for messages.

        Raises:
            ModelMismatchError: It holds no text model.
        """
        self._label = label
        self._stored = stored_tensors(folder)
        found = [prefix for prefix in _PREFIXES if f"{prefix}embed_tokens.weight" in self._stored]
        if len(found) != 1:
            raise ModelMismatchError(
                f"the weights of {label} hold {len(found)} text models (tensors named ...embed_tokens.weight); one is "
                "needed. Check that they belong to this config.json"
            )
        self._prefix = found[0]
        self._unread = set(self._stored)

    def holds(self, name: str) -> bool:
        """Return whether a tensor is stored under this very name."""
        return name in self._stored

    def part(self, name: str) -> str:
        """Return what the names of a part's tensors begin with, such as `model.visual.` for `visual.`."""
        whole = f"model.{name}"
        return whole if any(stored.startswith(whole) for stored in self._stored) else name

    def read(self, shapes: Mapping[str, tuple[int, ...]]) -> list[torch.Tensor]:
        """Return tensors in memory of their own, in the number format of the file.

        Args:
            shapes: Their names, and the shapes that the configuration gives them.

        Raises:
            ModelMismatchError: One is missing or has another shape.
            ClosedError: The interpreter is exiting.
        """
        exiting.stop_between()
        whole = {name: self._prefix + name if self._prefix + name in self._stored else name for name in shapes}
        if absent := [name for name in shapes if whole[name] not in self._stored]:
            raise ModelMismatchError(
                f"the weights of {self._label} lack {len(absent)} tensors, {min(absent)!r} for one. Fetch the files "
                "again, or check that they belong to this config.json"
            )
        for name, shape in shapes.items():
            if self._stored[whole[name]].shape != shape:
                raise ModelMismatchError(
                    f"{name!r} in the weights of {self._label} has shape {self._stored[whole[name]].shape}, by "
                    f"config.json it would be {shape}; these are not the weights of this model"
                )
        self._unread -= set(whole.values())
        found = read({name: self._stored[place] for name, place in whole.items()})
        return [found[name] for name in shapes]

    def check_all_read(self, *, unused: re.Pattern[str], other_parts: tuple[str, ...] = ()) -> None:
        """Refuse a checkpoint with tensors that nobody asked for: without them it would be another model.

        Args:
            unused: Names of tensors on which no result depends.
            other_parts: What the names begin with of parts that texts do not pass, behind a prefix of the whole model.

        Raises:
            ModelMismatchError: There are some.
        """
        self._refuse(
            {
                name
                for name in self._unread
                if not unused.search(name) and not name.removeprefix("model.").startswith(other_parts)
            }
        )

    def check_part_read(self, prefix: str, *, unused: re.Pattern[str]) -> None:
        """Refuse tensors of one part that nobody asked for.

        Args:
            prefix: What their names begin with, of `part`.
            unused: Names of tensors on which no result depends.

        Raises:
            ModelMismatchError: There are some.
        """
        self._refuse({name for name in self._unread if name.startswith(prefix) and not unused.search(name)})

    def _refuse(self, rest: set[str]) -> None:
        if rest:
            raise ModelMismatchError(
                f"the weights of {self._label} hold {len(rest)} tensors that the engine does not use, {min(rest)!r} "
                "for one; with them it would be another model. Check that config.json and weights belong together"
            )


def read(stored: Mapping[str, StoredTensor]) -> dict[str, torch.Tensor]:
    """Return tensors in memory of their own, in the number format of the file.

    Read and not mapped: a file that is written again must not change a model that is in use, and one that is cut short
    meanwhile would end the process.

    Raises:
        ModelMismatchError: A file is shorter than its header said.
    """
    found: dict[str, torch.Tensor] = {}
    order = sorted(stored, key=lambda name: (stored[name].file, stored[name].start))
    for file, names in itertools.groupby(order, key=lambda name: stored[name].file):
        with file.open("rb", buffering=0) as stream:
            for name in names:
                tensor = stored[name]
                values = torch.empty(tensor.size, dtype=torch.uint8)
                stream.seek(tensor.start)
                if _fill(stream, memoryview(values.numpy())) < tensor.size:  # type: ignore[arg-type]
                    raise ModelMismatchError(f"{file} became shorter while {name!r} was read; fetch or save it again")
                found[name] = values.view(_DTYPES[tensor.dtype]).view(tensor.shape)
    return found


def _fill(stream: FileIO, room: memoryview) -> int:
    """Read until the room is full, since one call reads 2 GB at most; return the bytes that were there."""
    done = 0
    while done < len(room) and (count := stream.readinto(room[done:])):
        done += count
    return done
