"""The vision tower: pictures of any sizes, side by side, to what stands in the place of their tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from embrief.engine.attention import attend
from embrief.engine.linear import Linear, make_biased
from embrief.engine.seeing import Features, Packing, blocks, neighbours, turned
from embrief.files.tensors import BUFFERS
from embrief.images.patches import patches

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embrief.engine.checkpoint import Checkpoint
    from embrief.engine.description import VisionModel

_EPSILON = 1e-6
"""Of all norms; config.json does not name it (transformers' modeling_qwen3_vl)."""
_CHANNELS = 3


@dataclass(frozen=True, slots=True)
class _Norm:
    """LayerNorm."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, _EPSILON)


@dataclass(frozen=True, slots=True)
class _Layer:
    before_attention: _Norm
    before_mlp: _Norm
    qkv: Linear
    output: Linear
    up: Linear
    down: Linear


@dataclass(frozen=True, slots=True)
class _Merger:
    """A square of patches to one token."""

    norm: _Norm
    """Of each patch, or of all patches of a square together."""
    up: Linear
    down: Linear
    inputs: int
    """Values of a square."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Take (patches, hidden_size), return (tokens, width)."""
        width = len(self.norm.weight)
        y = self.norm(x.view(-1, width)).view(-1, self.inputs)
        return self.down(F.gelu(self.up(y)))


@dataclass(frozen=True, slots=True)
class _Places:
    """Where the patches of pictures are."""

    learned: torch.Tensor
    """(patches, hidden_size) what the table of positions has for them."""
    cos: torch.Tensor
    """(patches, 1, head_dim / 2)."""
    sin: torch.Tensor


class VisionTower:
    """A vision model from pixels to features."""

    def __init__(
        self,
        model: VisionModel,
        checkpoint: Checkpoint,
        device: str,
        dtype: torch.dtype,
        *,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        """Read the weights.

        Args:
            model: What to compute.
            checkpoint: The weights.
            device: Where to compute.
            dtype: The number format of weights and results.
            mean: Of red, green and blue, taken from values between 0 and 1.
            std: By which each is then divided.

        Raises:
            ModelMismatchError: Tensors are missing, have the wrong shape, or are more than the tower has.
        """
        self._model, self._device, self._dtype = model, device, dtype
        self._mean, self._std = mean, std
        self._packing = Packing(device)
        hidden, inner, square = model.hidden_size, model.intermediate_size, model.merge**2
        read = _Reader(checkpoint, device, dtype)
        kernel = (_CHANNELS, model.frames, model.patch, model.patch)
        conv, bias, table = read(
            {
                "patch_embed.proj.weight": (hidden, *kernel),
                "patch_embed.proj.bias": (hidden,),
                "pos_embed.weight": (model.side**2, hidden),
            }
        )
        # Patches do not overlap, so their convolution is a product.
        self._patches = make_biased(conv.reshape(hidden, -1), bias)
        # Between its rows is interpolated in float32.
        self._table = table.float()
        sizes = {
            "attn.qkv": (3 * hidden, hidden), "attn.proj": (hidden, hidden),
            "mlp.linear_fc1": (inner, hidden), "mlp.linear_fc2": (hidden, inner),
        }  # fmt: skip
        self._layers = []
        for index in range(model.layers):
            name = f"blocks.{index}."
            products = (read.linear(name + part, shape) for part, shape in sizes.items())
            self._layers.append(_Layer(read.norm(f"{name}norm1", hidden), read.norm(f"{name}norm2", hidden), *products))

        def merger(name: str, normed: int) -> _Merger:
            inputs = hidden * square
            up = read.linear(f"{name}.linear_fc1", (inputs, inputs))
            down = read.linear(f"{name}.linear_fc2", (model.width, inputs))
            return _Merger(read.norm(f"{name}.norm", normed), up, down, inputs)

        self._merger = merger("merger", hidden)
        self._taken = {
            layer: merger(f"deepstack_merger_list.{number}", hidden * square)
            for number, layer in enumerate(model.taken_after)
        }
        checkpoint.check_part_read(read.prefix, unused=BUFFERS)
        # Half of the pairs turn with the row, the others with the column.
        half = model.head_dim // 2
        self._frequencies = 1.0 / model.rope_theta ** (torch.arange(0, half, 2, dtype=torch.float32) / half)

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
        model = self._model
        x = torch.cat([self._embed(pixels) for pixels in pictures])
        where = self._places(grids)
        x += where.learned.to(x.dtype)
        added: list[torch.Tensor] = []
        for index, layer in enumerate(self._layers):
            self._attention(layer, x, where, grids)
            for rows in blocks(len(x), self._packing.block):
                inner = F.gelu(layer.up(layer.before_mlp(x[rows])), approximate="tanh")
                x[rows] = layer.down(inner, x[rows])
            if index in self._taken:
                added.append(self._merged(self._taken[index], x))
        tokens = self._merged(self._merger, x)
        counts = [rows * columns // model.merge**2 for rows, columns in grids]
        parts = [torch.split(one, counts) for one in (tokens, *added)]
        # Copies: a view would hold on to all.
        return [
            Features(first.clone(), tuple(one.clone() for one in more)) for first, *more in zip(*parts, strict=True)
        ]

    def _embed(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        model = self._model
        rows = torch.from_numpy(patches(pixels, patch=model.patch, merge=model.merge, mean=self._mean, std=self._std))
        return torch.cat(
            [self._patches(rows[part].to(self._device, self._dtype)) for part in blocks(len(rows), self._packing.block)]
        )

    def _merged(self, merger: _Merger, x: torch.Tensor) -> torch.Tensor:
        square = self._model.merge**2
        block = self._packing.block // square * square
        return torch.cat([merger(x[rows]) for rows in blocks(len(x), block)])

    def _attention(self, layer: _Layer, x: torch.Tensor, where: _Places, grids: Sequence[tuple[int, int]]) -> None:
        """Add to x what the patches of each picture see of each other."""
        model = self._model
        shape = (len(x), model.heads, model.head_dim)
        q, k, v = (x.new_empty(shape) for _ in range(3))
        for rows in blocks(len(x), self._packing.block):
            y = layer.qkv(layer.before_attention(x[rows])).view(-1, 3, *shape[1:])
            angles = where.cos[rows], where.sin[rows]
            # The scale goes in front of the rounding.
            q[rows] = turned(y[:, 0].float() * model.head_dim**-0.5, angles)
            k[rows] = turned(y[:, 1].float(), angles)
            v[rows] = y[:, 2]
        mixed = torch.empty_like(q)
        for start, count, length in neighbours(grids):
            part = slice(start, start + count * length)
            asked, keys, values, out = (one[part].view(count, length, *shape[1:]) for one in (q, k, v, mixed))
            attend(asked, keys, values, causal=False, window=None, out=out)
        for rows in blocks(len(x), self._packing.block):
            x[rows] = layer.output(mixed[rows].view(-1, model.hidden_size), x[rows])

    def _places(self, grids: Sequence[tuple[int, int]]) -> _Places:
        learned, angles = [], []
        for rows, columns in dict.fromkeys(grids):
            row, column = _in_squares(rows, columns, self._model.merge)
            learned.append(self._between(row, rows, column, columns))
            turned = [place[:, None].float() * self._frequencies for place in (row, column)]
            angles.append(torch.cat(turned, -1))
        known = {grid: place for place, grid in enumerate(dict.fromkeys(grids))}
        order = [known[grid] for grid in grids]
        whole = torch.cat([angles[place] for place in order]).to(self._device)[:, None]
        return _Places(torch.cat([learned[place] for place in order]), whole.cos(), whole.sin())

    def _between(self, row: torch.Tensor, rows: int, column: torch.Tensor, columns: int) -> torch.Tensor:
        """Return what lies between the learned positions, bilinear, the corners on each other, (patches, hidden)."""
        side = self._model.side
        found: torch.Tensor | None = None
        below, above = (_taps(place, count, side) for place, count in ((row, rows), (column, columns)))
        for row_at, row_share in below:
            for column_at, column_share in above:
                index = (row_at * side + column_at).to(self._device)
                part = F.embedding(index, self._table).mul_((row_share * column_share)[:, None].to(self._device))
                found = part if found is None else found.add_(part)
        assert found is not None
        return found


class _Reader:
    """Tensors of the tower, where and in the format in which it computes."""

    def __init__(self, checkpoint: Checkpoint, device: str, dtype: torch.dtype) -> None:
        self._checkpoint = checkpoint
        self.prefix = checkpoint.part("visual.")
        self._to: dict[str, Any] = {"device": device, "dtype": dtype}

    def __call__(self, shapes: Mapping[str, tuple[int, ...]]) -> list[torch.Tensor]:
        whole = {self.prefix + name: shape for name, shape in shapes.items()}
        return [tensor.to(**self._to) for tensor in self._checkpoint.read(whole)]

    def norm(self, name: str, width: int) -> _Norm:
        return _Norm(*self({f"{name}.weight": (width,), f"{name}.bias": (width,)}))

    def linear(self, name: str, shape: tuple[int, int]) -> Linear:
        weight, bias = self({f"{name}.weight": shape, f"{name}.bias": shape[:1]})
        return make_biased(weight, bias)


def _in_squares(rows: int, columns: int, merge: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return row and column of each patch, (patches,) each: squares line by line, and lines inside each."""
    shape = (rows // merge, merge, columns // merge, merge)
    row = torch.arange(rows)[:, None].expand(rows, columns)
    column = torch.arange(columns).expand(rows, columns)
    first, second = (place.reshape(shape).transpose(1, 2).flatten() for place in (row, column))
    return first, second


def _taps(place: torch.Tensor, count: int, side: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the two learned positions next to each place on an axis, and their shares, (patches,) each.

    In float32 and in transformers' order, which decide the last bit.
    """
    exact = place.float() * (side - 1) / max(count - 1, 1)
    low = exact.floor()
    taps = []
    for offset in (0, 1):
        share = (1 - (exact - low - offset).abs()).clamp_(min=0)
        taps.append(((low.long() + offset).clamp_(0, side - 1), share))
    return taps
