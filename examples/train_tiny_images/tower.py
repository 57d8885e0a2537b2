"""The vision tower, and the text model behind it, for squares of one size: a batch is one tensor.

The parameters have transformers' names (`Qwen3VLVisionModel`), and mean the same there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE, PATCH, MERGE = 64, 16, 2
GRID = SIDE // PATCH
"""Patches per side of a picture."""
WIDTH, DEPTH, HEADS, INNER = 160, 4, 5, 480
OUT = 256
"""Values per token of the text model."""
_EPS = 1e-6
POSITIONS = ((0, 1, 1, 1, 1, 3, 4), (0, 1, 1, 2, 2, 3, 4), (0, 1, 2, 1, 2, 3, 4))
"""Of begin, four tokens of the picture, end, and the final token: in time, height and width."""
SECTIONS = (12, 10, 10)
_THETA = 1e6


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, states: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        count, length, _ = states.shape
        queries, keys, values = self.qkv(states).view(count, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(_turned(queries, turn), _turned(keys, turn), values)
        out: Tensor = self.proj(found.transpose(1, 2).reshape(count, length, WIDTH))
        return out


class _Feed(nn.Module):
    def __init__(self, width: int, inner: int, out: int) -> None:
        super().__init__()
        self.linear_fc1 = nn.Linear(width, inner)
        self.linear_fc2 = nn.Linear(inner, out)


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, eps=_EPS), nn.LayerNorm(WIDTH, eps=_EPS)
        self.attn = _Attention()
        self.mlp = _Feed(WIDTH, INNER, WIDTH)

    def forward(self, states: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        states = states + self.attn(self.norm1(states), turn)
        inner = F.gelu(self.mlp.linear_fc1(self.norm2(states)), approximate="tanh")
        out: Tensor = states + self.mlp.linear_fc2(inner)
        return out


class _Merger(_Feed):
    def __init__(self) -> None:
        wide = MERGE * MERGE * WIDTH
        super().__init__(wide, wide, OUT)
        self.norm = nn.LayerNorm(WIDTH, eps=_EPS)

    def forward(self, states: Tensor) -> Tensor:
        merged = self.norm(states).reshape(len(states), -1, MERGE * MERGE * WIDTH)
        out: Tensor = self.linear_fc2(F.gelu(self.linear_fc1(merged)))
        return out


class _Patches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, WIDTH, (2, PATCH, PATCH), (2, PATCH, PATCH))

    def forward(self, pixels: Tensor) -> Tensor:
        # A picture stands for two equal frames.
        weight = self.proj.weight.sum(2).reshape(WIDTH, -1)
        half = GRID // MERGE
        cut = pixels.reshape(-1, 3, half, MERGE, PATCH, half, MERGE, PATCH).permute(0, 2, 5, 3, 6, 1, 4, 7)
        return F.linear(cut.reshape(len(pixels), GRID * GRID, -1), weight, self.proj.bias)


class Tower(nn.Module):
    """What makes four tokens of a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = _Patches()
        self.pos_embed = nn.Embedding(GRID * GRID, WIDTH)
        self.blocks = nn.ModuleList(_Block() for _ in range(DEPTH))
        self.merger = _Merger()
        half = GRID // MERGE
        places = torch.arange(GRID * GRID).view(half, MERGE, half, MERGE).permute(0, 2, 1, 3).reshape(-1)
        quarter = WIDTH // HEADS // 4
        steps = 1 / 10000 ** (torch.arange(quarter) / quarter)
        angles = torch.cat([(places // GRID)[:, None] * steps, (places % GRID)[:, None] * steps], -1)
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("cos", torch.cat([angles, angles], -1).cos(), persistent=False)
        self.register_buffer("sin", torch.cat([angles, angles], -1).sin(), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.pos_embed.weight, std=0.02)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the tokens of pictures: (n, 3, SIDE, SIDE) between -1 and 1 to (n, 4, OUT)."""
        states = self.patch_embed(pixels) + self.pos_embed.weight[self.places]
        for block in self.blocks:
            states = block(states, (self.cos, self.sin))
        out: Tensor = self.merger(states)
        return out


class TextModel:
    """Qwen3's layers with weights that stay as they are, for a picture between two marks and the final token."""

    def __init__(self, weights: dict[str, Tensor], *, layers: int, head: int, marks: tuple[int, int, int]) -> None:
        """Keep the weights.

        Args:
            weights: By their names, in float32.
            layers: How many there are.
            head: Values per head.
            marks: Token ids of what stands before a picture, behind it, and last.
        """
        self._weights, self._layers, self._head = weights, layers, head
        self._before, self._behind, self._last = (weights["embed_tokens.weight"][mark].view(1, 1, -1) for mark in marks)
        steps = 1 / _THETA ** (torch.arange(0, head, 2) / head)
        angles = torch.tensor(POSITIONS)[..., None] * steps
        mixed = angles[0].clone()
        for axis in (1, 2):
            mixed[:, axis : 3 * SECTIONS[axis] : 3] = angles[axis][:, axis : 3 * SECTIONS[axis] : 3]
        both = torch.cat([mixed, mixed], -1)
        self._turn = both.cos(), both.sin()

    def __call__(self, tokens: Tensor) -> Tensor:
        """Return the vectors of pictures from their tokens: (n, 4, OUT) to (n, OUT), of unit length."""
        ends = (mark.expand(len(tokens), 1, OUT) for mark in (self._before, self._behind, self._last))
        before, behind, last = ends
        states = torch.cat([before, tokens, behind, last], 1)
        for layer in range(self._layers):
            states = states + self._attend(self._norm(states, f"layers.{layer}.input_layernorm"), layer)
            inner = self._norm(states, f"layers.{layer}.post_attention_layernorm")
            gate, up = (self._linear(inner, f"layers.{layer}.mlp.{name}_proj") for name in ("gate", "up"))
            states = states + self._linear(F.silu(gate) * up, f"layers.{layer}.mlp.down_proj")
        return F.normalize(self._norm(states[:, -1], "norm"), dim=-1)

    def _attend(self, states: Tensor, layer: int) -> Tensor:
        count, length, _ = states.shape
        name = f"layers.{layer}.self_attn"
        queries, keys, values = (
            self._linear(states, f"{name}.{part}_proj").view(count, length, -1, self._head) for part in "qkv"
        )
        queries, keys = self._norm(queries, f"{name}.q_norm"), self._norm(keys, f"{name}.k_norm")
        queries, keys, values = (part.transpose(1, 2) for part in (queries, keys, values))
        found = F.scaled_dot_product_attention(
            _turned(queries, self._turn), _turned(keys, self._turn), values, is_causal=True
        )
        return self._linear(found.transpose(1, 2).reshape(count, length, -1), f"{name}.o_proj")

    def _linear(self, states: Tensor, name: str) -> Tensor:
        return F.linear(states, self._weights[f"{name}.weight"])

    def _norm(self, states: Tensor, name: str) -> Tensor:
        return F.rms_norm(states, (states.shape[-1],), self._weights[f"{name}.weight"], _EPS)


def _turned(states: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    first, second = states.chunk(2, -1)
    return states * turn[0] + torch.cat([-second, first], -1) * turn[1]
