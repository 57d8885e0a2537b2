"""The vision tower of the Gemma family: pictures of any sizes, side by side, to what stands in the place of tokens.

As transformers' `Gemma4VisionModel` and the layer behind it have it (release 5.23), without padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from embrief.engine.attention import attend
from embrief.engine.linear import Linear, make_linear
from embrief.engine.seeing import Features, Packing, blocks, neighbours, turned
from embrief.files.tensors import BUFFERS
from embrief.images.patches import CHANNELS, plain_patches

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embrief.engine.checkpoint import Checkpoint
    from embrief.engine.description import PooledVisionModel

_TOWER, _BEHIND = "vision_tower.", "embed_vision."
_NORMS = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")


@dataclass(frozen=True, slots=True)
class _Product:
    """A product with weights, in some checkpoints between two clips."""

    linear: Linear
    bounds: tuple[float, float, float, float] | None
    """Least and most of what goes in, and of what comes out."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.bounds is None:
            return self.linear(x)
        least, most, lowest, highest = self.bounds
        return self.linear(x.clamp(least, most)).clamp_(lowest, highest)


@dataclass(frozen=True, slots=True)
class _Layer:
    norms: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
    """Before and after attention, before and after the feed-forward part."""
    q_norm: torch.Tensor
    k_norm: torch.Tensor
    products: dict[str, _Product]
    """`q`, `k`, `v`, `o`, `gate`, `up` and `down`."""


class PooledVisionTower:
    """A vision model whose patches are averaged to tokens, from pixels to features."""

    def __init__(
        self, model: PooledVisionModel, checkpoint: Checkpoint, device: str, dtype: torch.dtype, *, width: int
    ) -> None:
        """Read the weights.

        Args:
            model: What to compute.
            checkpoint: The weights.
            device: Where to compute.
            dtype: The number format of weights and results.
            width: Values per token of the text model.

        Raises:
            ModelMismatchError: Tensors are missing, have the wrong shape, or are more than the tower has.
        """
        self._model, self._device = model, device
        self._checkpoint, self._dtype = checkpoint, dtype
        self._packing = Packing(device)
        hidden, inner, dim = model.hidden_size, model.intermediate_size, model.head_dim
        self._tower = checkpoint.part(_TOWER)
        behind = checkpoint.part(_BEHIND)
        weight, table = self._read(
            {
                "patch_embedder.input_proj.weight": (hidden, CHANNELS * model.patch**2),
                "patch_embedder.position_embedding_table": (2, model.places, hidden),
            }
        )
        self._patches, self._table = make_linear(weight, int8=False), table
        sizes = {
            "q": ("self_attn.q_proj", (model.heads * dim, hidden)),
            "k": ("self_attn.k_proj", (model.kv_heads * dim, hidden)),
            "v": ("self_attn.v_proj", (model.kv_heads * dim, hidden)),
            "o": ("self_attn.o_proj", (hidden, model.heads * dim)),
            "gate": ("mlp.gate_proj", (inner, hidden)),
            "up": ("mlp.up_proj", (inner, hidden)),
            "down": ("mlp.down_proj", (hidden, inner)),
        }
        self._layers = [self._read_layer(f"encoder.layers.{index}.", sizes) for index in range(model.layers)]
        self._shift: tuple[torch.Tensor, torch.Tensor] | None = None
        if model.standardised:
            bias, scale = self._read({"std_bias": (hidden,), "std_scale": (hidden,)})
            self._shift = bias.float(), scale.float()
        (found,) = checkpoint.read({f"{behind}embedding_projection.weight": (width, hidden)})
        self._projection = make_linear(found.to(device, dtype), int8=False)
        for part in (self._tower, behind):
            checkpoint.check_part_read(part, unused=BUFFERS)
        half = dim // 2
        self._frequencies = 1.0 / model.rope_theta ** (torch.arange(0, half, 2, dtype=torch.float32) / half)

    def _read(self, shapes: dict[str, tuple[int, ...]]) -> list[torch.Tensor]:
        whole = {self._tower + name: shape for name, shape in shapes.items()}
        return [tensor.to(self._device, self._dtype) for tensor in self._checkpoint.read(whole)]

    def _read_layer(self, name: str, sizes: dict[str, tuple[str, tuple[int, int]]]) -> _Layer:
        model = self._model
        hidden, dim = (model.hidden_size,), (model.head_dim,)
        before, after, second, last = self._read({f"{name}{norm}.weight": hidden for norm in _NORMS})
        q_norm, k_norm = self._read({f"{name}self_attn.{norm}.weight": dim for norm in ("q_norm", "k_norm")})
        products = {part: self._product(f"{name}{tensor}.", shape) for part, (tensor, shape) in sizes.items()}
        return _Layer((before, after, second, last), q_norm.float(), k_norm.float(), products)

    def _product(self, name: str, shape: tuple[int, int]) -> _Product:
        (weight,) = self._read({f"{name}linear.weight": shape})
        bounds = None
        if self._model.clipped:
            names = ("input_min", "input_max", "output_min", "output_max")
            least, most, lowest, highest = map(float, self._read({f"{name}{each}": () for each in names}))
            bounds = least, most, lowest, highest
        return _Product(make_linear(weight, int8=False), bounds)

    def patches(self, pixels: NDArray[np.uint8]) -> int:
        """Return how many patches a picture has, (height, width, 3)."""
        return int(np.prod(pixels.shape[:2])) // self._model.patch**2

    def run(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Features]:
        """Return the features of each picture.

        Args:
            pictures: (height, width, 3) each, sides multiples of what a token has.
        """
        return self._packing.run(pictures, self._model.patch, self._forward)

    def _forward(self, pictures: Sequence[NDArray[np.uint8]], grids: Sequence[tuple[int, int]]) -> list[Features]:
        x = torch.cat([self._embed(pixels, grid) for pixels, grid in zip(pictures, grids, strict=True)])
        angles = self._angles(grids)
        for layer in self._layers:
            self._attention(layer, x, angles, grids)
            for rows in blocks(len(x), self._packing.block):
                y = self._normed(x[rows], layer.norms[2])
                inner = F.gelu(layer.products["gate"](y), approximate="tanh").mul_(layer.products["up"](y))
                x[rows] += self._normed(layer.products["down"](inner), layer.norms[3])
        counts = [rows * columns for rows, columns in grids]
        return [
            Features(self._pooled(part, grid), ()) for part, grid in zip(torch.split(x, counts), grids, strict=True)
        ]

    def _embed(self, pixels: NDArray[np.uint8], grid: tuple[int, int]) -> torch.Tensor:
        """Return (patches, hidden_size): a picture's patches and where they are."""
        model = self._model
        values = torch.from_numpy(plain_patches(pixels, patch=model.patch, merge=model.merge))
        # Centred as transformers does it, which decides the last bit.
        centred = ((values - 0.5) * 2).to(self._device, self._dtype)
        found = torch.cat([self._patches(centred[rows]) for rows in blocks(len(centred), self._packing.block)])
        rows, columns = grid
        places = self._table[0, :columns] + self._table[1, :rows, None]
        return found + places.view(len(found), -1)

    def _angles(self, grids: Sequence[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cosines and sines, (patches, 2, 1, head_dim / 4): of the column, and of the row."""
        places = []
        for rows, columns in grids:
            column = torch.arange(columns).expand(rows, columns)
            row = torch.arange(rows)[:, None].expand(rows, columns)
            places.append(torch.stack((column.flatten(), row.flatten()), 1))
        angles = (torch.cat(places)[..., None].float() * self._frequencies).to(self._device)[:, :, None]
        return angles.cos(), angles.sin()

    def _attention(
        self, layer: _Layer, x: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor],
        grids: Sequence[tuple[int, int]],
    ) -> None:  # fmt: skip
        """Add to x what the patches of each picture see of each other."""
        model, dim = self._model, self._model.head_dim
        q = x.new_empty(len(x), model.heads, dim)
        k, v = (x.new_empty(len(x), model.kv_heads, dim) for _ in range(2))
        for rows in blocks(len(x), self._packing.block):
            y = self._normed(x[rows], layer.norms[0])
            here = angles[0][rows], angles[1][rows]
            q[rows] = self._placed(layer.products["q"](y), layer.q_norm, here)
            k[rows] = self._placed(layer.products["k"](y), layer.k_norm, here)
            v[rows] = F.rms_norm(layer.products["v"](y).view(-1, model.kv_heads, dim), (dim,), eps=model.epsilon)
        mixed = torch.empty_like(q)
        for start, count, length in neighbours(grids):
            part = slice(start, start + count * length)
            asked, keys, values, out = (one[part].view(count, length, *one.shape[1:]) for one in (q, k, v, mixed))
            attend(asked, keys, values, causal=False, window=None, out=out)
        for rows in blocks(len(x), self._packing.block):
            x[rows] += self._normed(layer.products["o"](mixed[rows].flatten(1)), layer.norms[1])

    def _placed(self, x: torch.Tensor, weight: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Return queries or keys normalised and turned: half of a head by the column, half by the row."""
        dim = self._model.head_dim
        normed = F.rms_norm(x.view(len(x), -1, dim).float(), (dim,), weight, self._model.epsilon)
        halves = normed.view(len(x), -1, 2, dim // 2).transpose(1, 2)
        return turned(halves, angles).transpose(1, 2).flatten(2)

    def _pooled(self, x: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Return the tokens of one picture, (tokens, width): the means of its squares of patches, projected."""
        model = self._model
        rows, columns = grid
        square = x.view(rows // model.merge, model.merge, columns // model.merge, model.merge, -1)
        # Rounded as transformers does it, and widened again: in float32 what follows is exact enough.
        means = square.float().mean((1, 3)).flatten(0, 1).to(x.dtype).float() * model.hidden_size**0.5
        if self._shift is not None:
            bias, scale = self._shift
            means = (means - bias) * scale
        normed = F.rms_norm(means.to(x.dtype), (model.hidden_size,), eps=model.epsilon)
        return self._projection(normed)

    def _normed(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, weight.shape, weight, self._model.epsilon)
