"""From hidden states to what the caller wants: one vector per text, or the log-odds of yes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from embrief.engine.checkpoint import read
from embrief.engine.description import dense_activation
from embrief.folders import read_modules
from embrief.json_files import read_object
from embrief.tensors import read_tensors

if TYPE_CHECKING:
    from pathlib import Path

    from embrief.engine.batch import Packed
    from embrief.engine.checkpoint import Checkpoint

_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"Identity": lambda x: x, "Tanh": torch.tanh}


class VectorHead:
    """Pooling and Dense layers, in float32."""

    def __init__(self, folder: Path, pooling: str, device: str) -> None:
        self._mean = pooling == "mean"
        self._dense = [
            _read_dense(folder / path, device)
            for kind, path in read_modules(folder) or ()
            if kind.rpartition(".")[2] == "Dense"
        ]

    def width(self, hidden_size: int) -> int:
        """Return the values per vector."""
        return len(self._dense[-1][0]) if self._dense else hidden_size

    def __call__(self, hidden: torch.Tensor, batch: Packed) -> torch.Tensor:
        """Return (n, width) for the hidden states of the last tokens, or of all tokens for a mean."""
        x = _means(hidden, batch) if self._mean else hidden.float()
        for weight, bias, activation in self._dense:
            x = activation(F.linear(x, weight, bias))
        return x


def _means(hidden: torch.Tensor, batch: Packed) -> torch.Tensor:
    parts = [
        hidden[group.tokens].view(group.count, group.length, -1).mean(1, dtype=torch.float32) for group in batch.groups
    ]
    return torch.cat(parts)


def _read_dense(
    folder: Path, device: str
) -> tuple[torch.Tensor, torch.Tensor | None, Callable[[torch.Tensor], torch.Tensor]]:
    config = read_object(folder / "config.json")
    tensors = read(read_tensors(folder / "model.safetensors"))
    bias = tensors["linear.bias"].float().to(device) if config.get("bias", True) else None
    activation = _ACTIVATIONS[dense_activation(config)]
    return tensors["linear.weight"].float().to(device), bias, activation


class AnswerHead:
    """The rows of the output layer that belong to yes and no, instead of the whole vocabulary; in float32."""

    def __init__(
        self, checkpoint: Checkpoint, shape: tuple[int, int], yes: int, no: int, *, tied: bool, device: str
    ) -> None:
        # An output layer that is stored counts, whatever config.json says: transformers ties nothing then.
        name = "embed_tokens.weight" if tied and not checkpoint.holds("lm_head.weight") else "lm_head.weight"
        table = checkpoint.read({name: shape})[0]
        self._direction = (table[yes].float() - table[no].float()).to(device)

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return (n,) logit(yes) - logit(no) for the hidden states of the last tokens."""
        return hidden.float() @ self._direction
