"""From hidden states to what the caller wants: one vector per text, or one score."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from embrief.engine.checkpoint import read
from embrief.engine.description import dense_activation
from embrief.files.json_files import read_object
from embrief.files.modules import after_pooling, read_modules
from embrief.files.tensors import read_tensors

if TYPE_CHECKING:
    from pathlib import Path

    from embrief.engine.batch import Packed

_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"Identity": lambda x: x, "Tanh": torch.tanh}


class VectorHead:
    """Pooling and the modules behind it, in float32."""

    def __init__(
        self,
        folder: Path,
        pooling: str,
        hidden_size: int,
        device: str,
        projection: torch.Tensor | None,
        *,
        without: Collection[str] = (),
    ) -> None:
        """Read what comes after the pooling.

        Args:
            folder: The model.
            pooling: `"mean"`, or else the last token.
            hidden_size: Values per token.
            device: Where to compute.
            projection: Weights (width, hidden_size) of the model's own linear layer behind its last norm, if it has
                one. It is the same before a mean as after it, and for fewer rows after it.
            without: Kinds of modules that are left out.
        """
        self._mean = pooling == "mean"
        self._steps: list[Callable[[torch.Tensor], torch.Tensor]] = []
        self.width = hidden_size
        """Values per vector."""
        if projection is not None:
            self._steps.append(partial(F.linear, weight=projection.float().to(device)))
            self.width = len(projection)
        for module in after_pooling(read_modules(folder) or ()):
            if module.kind in without:
                continue
            if module.kind == "Normalize":
                self._steps.append(F.normalize)
            else:
                dense = _Dense(folder / module.path, device)
                self._steps.append(dense)
                self.width = dense.width

    def __call__(self, hidden: torch.Tensor, batch: Packed) -> torch.Tensor:
        """Return (n, width) for the hidden states of the last tokens, or of all tokens for a mean."""
        return self.finish(_means(hidden, batch) if self._mean else hidden.float())

    def finish(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n, width) for pooled states, (n, hidden_size) in float32."""
        for step in self._steps:
            x = step(x)
        return x


def _means(hidden: torch.Tensor, batch: Packed) -> torch.Tensor:
    if hidden.is_cuda:
        # One kernel: several for each length would take longer than all layers of a small model.
        starts = F.pad(batch.last + 1, (1, 0))
        return torch.segment_reduce(hidden.float(), "mean", lengths=starts.diff(), axis=0)
    parts = [
        hidden[group.tokens].view(group.count, group.length, -1).mean(1, dtype=torch.float32) for group in batch.groups
    ]
    return torch.cat(parts)


class _Dense:
    """A linear layer and its activation."""

    def __init__(self, folder: Path, device: str) -> None:
        config = read_object(folder / "config.json")
        tensors = read(read_tensors(folder / "model.safetensors"))
        self.width = len(tensors["linear.weight"])
        self._weight = tensors["linear.weight"].float().to(device)
        self._bias = tensors["linear.bias"].float().to(device) if "linear.bias" in tensors else None
        self._activation = _ACTIVATIONS[dense_activation(config)]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._activation(F.linear(x, self._weight, self._bias))


class ScoreHead:
    """One number from the last token's state, in float32."""

    def __init__(self, direction: torch.Tensor, device: str) -> None:
        self._direction = direction.float().to(device)

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return (n,) products of the hidden states of the last tokens with the direction of relevance."""
        return hidden.float() @ self._direction
