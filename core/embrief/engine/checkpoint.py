"""Tensors from safetensors files, a few at a time, so that loading needs little more memory than the model itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from safetensors import safe_open

from embrief.errors import ModelMismatchError

if TYPE_CHECKING:
    from pathlib import Path

    import torch

_INDEX = "model.safetensors.index.json"
# The same decoder is stored alone, or inside a language model or a sentence-transformers module.
_PREFIXES = ("", "model.", "language_model.", "model.language_model.", "auto_model.")


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
        self._files: dict[str, Path] = {}
        index = folder / _INDEX
        if index.is_file():
            shards = json.loads(index.read_text("utf-8"))["weight_map"]
            self._files = {name: folder / file for name, file in shards.items()}
        else:
            file = folder / "model.safetensors"
            with safe_open(file, "pt") as tensors:
                self._files = dict.fromkeys(tensors.keys(), file)
        found = [prefix for prefix in _PREFIXES if f"{prefix}embed_tokens.weight" in self._files]
        if len(found) != 1:
            raise ModelMismatchError(
                f"the weights of {label} hold {len(found)} text models (tensors named ...embed_tokens.weight); one is "
                "needed. Check that they belong to this config.json"
            )
        self._prefix = found[0]
        self._unread = set(self._files)

    def read(self, shapes: Mapping[str, tuple[int, ...]]) -> list[torch.Tensor]:
        """Return tensors in memory of their own, in the number format of the file.

        Args:
            shapes: Their names, and the shapes that the configuration gives them.

        Raises:
            ModelMismatchError: One is missing or has another shape.
        """
        found: dict[str, torch.Tensor] = {}
        whole = {name: self._prefix + name if self._prefix + name in self._files else name for name in shapes}
        if absent := [name for name in shapes if whole[name] not in self._files]:
            raise ModelMismatchError(
                f"the weights of {self._label} lack {len(absent)} tensors, {min(absent)!r} for one. Fetch the files "
                "again, or check that they belong to this config.json"
            )
        for file in {self._files[name] for name in whole.values()}:
            # Opened anew each time: pages of a mapped file count as this process's memory until it is closed. Copied:
            # a file that is written again must not change a model that is in use.
            with safe_open(file, "pt") as tensors:
                for name in shapes:
                    if self._files[whole[name]] == file:
                        found[name] = tensors.get_tensor(whole[name]).clone()
        self._unread -= set(whole.values())
        for name, shape in shapes.items():
            if found[name].shape != shape:
                raise ModelMismatchError(
                    f"{name!r} in the weights of {self._label} has shape {tuple(found[name].shape)}, by config.json "
                    f"it would be {shape}; these are not the weights of this model"
                )
        return [found[name] for name in shapes]

    def check_all_read(self, ignored: Sequence[str] = ()) -> None:
        """Refuse a checkpoint with tensors that nobody asked for: without them it would be another model.

        Raises:
            ModelMismatchError: There are some.
        """
        rest = {name for name in self._unread if not name.endswith((*ignored, "rotary_emb.inv_freq"))}
        if rest:
            raise ModelMismatchError(
                f"the weights of {self._label} hold {len(rest)} tensors that the engine does not use, {min(rest)!r} "
                "for one; use backend='sentence-transformers'"
            )
