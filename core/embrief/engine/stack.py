"""The transformer layers, run on packed batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from embrief.engine import varlen
from embrief.engine.attention import attend
from embrief.engine.batch import Packed, pack
from embrief.engine.linear import Linear, make_linear
from embrief.engine.prefix import Prefix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embrief.engine.checkpoint import Checkpoint
    from embrief.engine.description import LayerInputs, LayerKind, TextModel
    from embrief.engine.seeing import Features

_BLOCK = 512
"""Rows that pass through the products at a time: their intermediate results stay in the processor's cache."""
_CUDA_BLOCK = 16384
"""The same on an NVIDIA GPU: enough to keep it busy while the next kernels are started, and a bound of the memory."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """Where and how exactly the model computes."""

    device: str
    dtype: torch.dtype
    int8: bool = False
    """Whether the layers' products run in int8; everything between them is in `dtype`."""


@dataclass(frozen=True, slots=True)
class Side:
    """What a layer needs for its share of the embeddings; `LayerInputs` says what becomes of it."""

    share: Linear
    gate: Linear
    back: Linear
    norm: torch.Tensor


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer's weights, ready to run."""

    kind: LayerKind
    norms: dict[str, torch.Tensor]
    q_norm: torch.Tensor
    """(head_dim,) float32, with the scale of attention."""
    k_norm: torch.Tensor
    qkv: Linear | None
    """Queries, keys and values in one product; `None` in a layer that needs queries of the last tokens only."""
    queries: Linear | None
    keys_values: Linear | None
    output: Linear
    gate_up: Linear
    down: Linear
    side: Side | None
    scalar: float
    """What the stream is multiplied by at the end."""


class Stack:
    """A text model from token ids to normalised hidden states."""

    def __init__(self, model: TextModel, checkpoint: Checkpoint, numbers: Numbers, *, last_only: bool) -> None:
        """Read the weights.

        Args:
            model: What to compute.
            checkpoint: The weights.
            numbers: Device and number format.
            last_only: Whether the state of the last token of each text is all that will be used.

        Raises:
            ModelMismatchError: Tensors are missing or have the wrong shape.
        """
        self._model = model
        self._numbers = numbers
        self._last_only = last_only
        self._act: Callable[[torch.Tensor], torch.Tensor] = ACTIVATIONS[model.activation]
        kinds = set(model.layers)
        self._cuda = numbers.device.startswith("cuda")
        self._block = _CUDA_BLOCK if self._cuda else _BLOCK
        self._frequencies = {kind: frequencies(kind.rope_theta, kind.head_dim).to(numbers.device) for kind in kinds}
        width = model.hidden_size
        table, norm = checkpoint.read({"embed_tokens.weight": (model.vocabulary, width), "norm.weight": (width,)})
        # On the CPU in the file's own format: only the rows of a batch are converted.
        self._table = table if numbers.device == "cpu" else table.to(numbers.device, numbers.dtype)
        self._norm = self._norm_weight(norm)
        shares: tuple[torch.Tensor, ...] = ()
        if (inputs := model.layer_inputs) is not None:
            shares, self._share_norm = self._read_shares(inputs, checkpoint)
            # Not in front of the norm, where bfloat16 would round: a norm undoes a factor but for its epsilon.
            self._share_epsilon = model.epsilon / inputs.scale**2
        self._layers = [
            self._read_layer(index, checkpoint, shares[index] if shares else None) for index in range(len(model.layers))
        ]
        self._kernels = {kind: varlen.find(numbers.device, numbers.dtype, model, kind) for kind in kinds}
        held = model.placeholders
        self._placeholders = torch.tensor(held.ids, device=numbers.device) if held is not None else None

    def _norm_weight(self, weight: torch.Tensor) -> torch.Tensor:
        whole = weight.float() + self._model.norm_offset
        return whole.to(self._numbers.device, torch.float32 if self._model.norm_offset else self._numbers.dtype)

    def _read_shares(
        self, inputs: LayerInputs, checkpoint: Checkpoint
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Return the weights that make each layer's share, (width, hidden) each, and the norm of all of them."""
        count = len(self._model.layers)
        shapes = {inputs.shares: (count * inputs.width, self._model.hidden_size), inputs.share_norm: (inputs.width,)}
        whole, norm = checkpoint.read(shapes)
        return torch.chunk(whole, count), self._norm_weight(norm)

    def _read_layer(self, index: int, checkpoint: Checkpoint, share: torch.Tensor | None) -> Layer:
        model, kind = self._model, self._model.layers[index]
        width, inner, dim = model.hidden_size, model.intermediate_size, kind.head_dim
        shapes: dict[str, tuple[str, tuple[int, ...]]] = {
            **{place: (name, (width,)) for place, name in model.norms.items()},
            **{name: (f"self_attn.{name}", (dim,)) for name in ("q_norm", "k_norm")},
            "q": ("self_attn.q_proj", (model.heads * dim, width)),
            **{name: (f"self_attn.{name}_proj", (kind.kv_heads * dim, width)) for name in ("k", "v")},
            "o": ("self_attn.o_proj", (width, model.heads * dim)),
            **{name: (f"mlp.{name}_proj", (inner, width)) for name in ("gate", "up")},
            "down": ("mlp.down_proj", (width, inner)),
        }
        if (inputs := model.layer_inputs) is not None:
            shapes["side_gate"] = inputs.gate, (inputs.width, width)
            shapes["side_back"] = inputs.back, (width, inputs.width)
            shapes["side_norm"] = inputs.norm, (width,)
        tensors = checkpoint.read({f"layers.{index}.{name}.weight": shape for name, shape in shapes.values()})
        found = dict(zip(shapes, tensors, strict=True))
        del tensors
        if share is not None:
            found["share"] = share
        pruned = self._last_only and index == len(model.layers) - 1
        offset = model.norm_offset
        q_norm, k_norm = ((found[name].float() + offset).to(self._numbers.device) for name in ("q_norm", "k_norm"))

        def linear(*parts: str) -> Linear:
            whole = torch.cat([found.pop(part) for part in parts]) if len(parts) > 1 else found.pop(parts[0])
            return make_linear(whole.to(self._numbers.device, self._numbers.dtype), int8=self._numbers.int8)

        side = None
        if inputs is not None:
            norm = self._norm_weight(found["side_norm"])
            side = Side(linear("share"), linear("side_gate"), linear("side_back"), norm)
        scalar = 1.0
        if model.layer_scalar is not None:
            scalar = float(*checkpoint.read({f"layers.{index}.{model.layer_scalar}": (1,)}))
        return Layer(
            kind=kind,
            norms={place: self._norm_weight(found[place]) for place in model.norms},
            q_norm=q_norm * model.attention_scale,
            k_norm=k_norm,
            qkv=None if pruned else linear("q", "k", "v"),
            queries=linear("q") if pruned else None,
            keys_values=linear("k", "v") if pruned else None,
            output=linear("o"),
            gate_up=linear("gate", "up"),
            down=linear("down"),
            side=side,
            scalar=scalar,
        )

    def run(self, batch: Packed, features: Features | None = None) -> torch.Tensor:
        """Return hidden states: (n, hidden) of the last tokens, or (tokens, hidden) of all, as chosen at the start.

        Args:
            batch: What to run.
            features: What stands in the places of pictures' tokens, for a batch that holds pictures.
        """
        return self._normed(self._forward(batch, None, features), self._norm)

    def prefix(self, ids: NDArray[np.int32], before: Prefix | None) -> Prefix:
        """Compute the keys and values of token ids that come after a prefix, and return both as one."""
        kept: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._forward(pack([ids], [before], self._numbers.device), kept)
        keys, values = (tuple(part[side] for part in kept) for side in (0, 1))
        if before is not None:
            keys = tuple(torch.cat(pair) for pair in zip(before.keys, keys, strict=True))
            values = tuple(torch.cat(pair) for pair in zip(before.values, values, strict=True))
            ids = np.concatenate([before.ids, ids])
        return Prefix(ids, keys, values)

    def _forward(
        self,
        batch: Packed,
        kept: list[tuple[torch.Tensor, torch.Tensor]] | None,
        features: Features | None = None,
    ) -> torch.Tensor:
        blocks = [self._embed(ids) for ids in torch.split(batch.ids, self._block)]
        pads = self._pads(batch) if features is not None else []
        if features is not None:
            for place, rows, shown in pads:
                blocks[place].index_copy_(0, rows, features.tokens[shown])
        # What layers take their shares from.
        sources = blocks.copy() if self._model.layer_inputs is not None else []
        tables = {kind: self._angles(batch.positions, kind) for kind in self._frequencies}
        layouts = varlen.layouts(batch, self._kernels)
        for index, layer in enumerate(self._layers):
            angles = tables[layer.kind]
            q, k, v = self._queries_keys_values(layer, blocks, angles)
            if kept is not None:
                kept.append((k, v))
                if index == len(self._layers) - 1:
                    break
            if q is None:
                hidden = torch.cat(blocks)[batch.last]
                blocks = list(torch.split(hidden, self._block))
                q = self._last_queries(layer, blocks, (angles[0][batch.last], angles[1][batch.last]))
                if sources:
                    sources = list(torch.split(torch.cat(sources)[batch.last], self._block))
            mixed = self._attend(layer, batch, layouts[layer.kind], index, q, k, v)
            del q, k, v
            for place, part in enumerate(torch.split(mixed, self._block)):
                x = self._feed_forward(layer, blocks[place], part)
                if layer.side is not None:
                    x = self._with_share(layer.side, x, sources[place])
                blocks[place] = x.mul_(layer.scalar) if layer.scalar != 1 else x
            if features is not None and index < len(features.added):
                for place, rows, shown in pads:
                    blocks[place].index_add_(0, rows, features.added[index][shown])
        return torch.cat(blocks) if len(blocks) > 1 else blocks[0]

    def _pads(self, batch: Packed) -> list[tuple[int, torch.Tensor, slice]]:
        """Return which block, which of its rows, and which of all pictures' tokens these are."""
        found = []
        for place, start in enumerate(range(0, len(batch.ids), self._block)):
            first, end = np.searchsorted(batch.pads, (start, start + self._block))
            if end > first:
                rows = torch.from_numpy(batch.pads[first:end] - start).to(self._numbers.device)
                found.append((place, rows, slice(int(first), int(end))))
        return found

    def _embed(self, ids: torch.Tensor) -> torch.Tensor:
        if self._placeholders is not None:
            assert self._model.placeholders is not None
            ids = ids.masked_fill(torch.isin(ids, self._placeholders), self._model.placeholders.read_as)
        hidden = F.embedding(ids, self._table).to(self._numbers.dtype)
        if self._model.embedding_scale != 1:
            # Rounded to the number format, as the model was trained.
            hidden = hidden * torch.tensor(self._model.embedding_scale, dtype=hidden.dtype)
        return hidden

    def _angles(self, positions: torch.Tensor, kind: LayerKind) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cosines and sines, (tokens, 1, head_dim / 2)."""
        angles = positions[..., None].float() * self._frequencies[kind]
        if positions.ndim == 2:
            # M-RoPE, interleaved: height and width have every third pair until they have theirs (Qwen3-VL).
            time, *others = angles
            for first, (axis, count) in enumerate(zip(others, self._model.sections[1:], strict=True), start=1):
                theirs = slice(first, 3 * count, 3)
                time[:, theirs] = axis[:, theirs]
            angles = time
        return angles.cos()[:, None], angles.sin()[:, None]

    def _normed(self, x: torch.Tensor, weight: torch.Tensor, epsilon: float | None = None) -> torch.Tensor:
        epsilon = self._model.epsilon if epsilon is None else epsilon
        if weight.dtype == x.dtype:
            return F.rms_norm(x, (x.shape[-1],), weight, epsilon)
        return F.rms_norm(x.float(), (x.shape[-1],), weight, epsilon).to(x.dtype)

    def _queries_keys_values(
        self, layer: Layer, blocks: list[torch.Tensor], angles: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor]:
        """Return (tokens, heads, head_dim) each; no queries in a layer that needs those of the last tokens only."""
        model, dim, kv_heads = self._model, layer.kind.head_dim, layer.kind.kv_heads
        heads = model.heads if layer.qkv is not None else 0
        product = layer.qkv or layer.keys_values
        assert product is not None
        tokens = sum(map(len, blocks))
        queries = blocks[0].new_empty(tokens, heads, dim)
        keys, values = blocks[0].new_empty(2, tokens, kv_heads, dim)
        for rows, x in _placed(blocks):
            y = product(self._normed(x, layer.norms["before_attention"])).view(len(x), -1, dim)
            q, k, v = torch.split(y, [heads, kv_heads, kv_heads], 1)
            here = angles[0][rows], angles[1][rows]
            if heads:
                self._turn(q, layer.q_norm, here, queries[rows])
            self._turn(k, layer.k_norm, here, keys[rows])
            values[rows] = F.rms_norm(v, (dim,), eps=model.epsilon) if model.value_norm else v
        return queries if heads else None, keys, values

    def _last_queries(
        self, layer: Layer, blocks: list[torch.Tensor], angles: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        dim = layer.kind.head_dim
        assert layer.queries is not None
        queries = blocks[0].new_empty(len(angles[0]), self._model.heads, dim)
        for rows, x in _placed(blocks):
            y = layer.queries(self._normed(x, layer.norms["before_attention"])).view(len(x), -1, dim)
            self._turn(y, layer.q_norm, (angles[0][rows], angles[1][rows]), queries[rows])
        return queries

    def _turn(
        self, x: torch.Tensor, weight: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor], out: torch.Tensor
    ) -> None:
        """Normalise queries or keys and turn them by their position (rotary embedding, arXiv 2104.09864)."""
        half = x.shape[-1] // 2
        cos, sin = angles
        if self._cuda:
            # Half as many kernels: of a short text each takes less time than the processor needs to start it.
            normed = F.rms_norm(x.float(), x.shape[-1:], weight, self._model.epsilon)
            a, b = normed[..., :half], normed[..., half:]
            torch.addcmul(a * cos, b, sin, value=-1, out=out[..., :half])
            torch.addcmul(b * cos, a, sin, out=out[..., half:])
            return
        # In float32, rounded once at the end: on CPUs faster than arithmetic in bfloat16, and closer.
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        normed = x * length.square_().div_(x.shape[-1]).add_(self._model.epsilon).rsqrt_()
        a, b = normed[..., :half], normed[..., half:]
        # The norm's weights go into the small tables of angles instead of the large states.
        first, second = weight[:half], weight[half:]
        turned = out if out.dtype == normed.dtype else torch.empty_like(normed)
        torch.mul(a, cos * first, out=turned[..., :half]).addcmul_(b, sin * second, value=-1)
        torch.mul(b, cos * second, out=turned[..., half:]).addcmul_(a, sin * first)
        if turned is not out:
            out.copy_(turned)

    def _attend(
        self, layer: Layer, batch: Packed, layout: varlen.Layout | None, index: int,
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        model, kind, single = self._model, layer.kind, layer.qkv is None
        kernel, place, done, found = self._kernels[kind], 0, 0, None
        if layout is not None and kernel is not None:
            tokens, done = layout.tokens, layout.groups
            place = layout.count if single else tokens
            found = varlen.attend(
                kernel, q[:place], k[:tokens], v[:tokens], layout, index,
                single=single, causal=model.causal, window=kind.window,
            )  # fmt: skip
            if place == len(q):
                return found.reshape(place, -1)
        # Contiguous, though queries are a part of a wider tensor.
        mixed = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        if found is not None:
            mixed[:place] = found
        for group in batch.groups[done:]:
            queries = 1 if single else group.length
            rows = slice(place, place + group.count * queries)
            asked = (group.count, queries, model.heads, kind.head_dim)
            held = (group.count, group.length, kind.kv_heads, kind.head_dim)
            attend(
                q[rows].view(asked),
                k[group.tokens].view(held),
                v[group.tokens].view(held),
                causal=model.causal,
                window=kind.window,
                out=mixed[rows].view(asked),
                before=group.prefix.layer(index) if group.prefix is not None else None,
            )
            place = rows.stop
        return mixed.view(len(mixed), -1)

    def _feed_forward(self, layer: Layer, x: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        if not self._model.sandwich_norms:
            x = layer.output(mixed, x)
            return layer.down(self._gated(layer, self._normed(x, layer.norms["before_mlp"])), x)
        x = x + self._normed(layer.output(mixed), layer.norms["after_attention"])
        y = layer.down(self._gated(layer, self._normed(x, layer.norms["before_mlp"])))
        return x + self._normed(y, layer.norms["after_mlp"])

    def _with_share(self, side: Side, x: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        share = self._normed(side.share(source), self._share_norm, self._share_epsilon)
        return x + self._normed(side.back(self._act(side.gate(x)).mul_(share)), side.norm)

    def _gated(self, layer: Layer, x: torch.Tensor) -> torch.Tensor:
        gate, up = layer.gate_up(x).chunk(2, -1)
        return self._act(gate).mul_(up)


def _placed(blocks: list[torch.Tensor]) -> Iterator[tuple[slice, torch.Tensor]]:
    start = 0
    for block in blocks:
        yield slice(start, start + len(block)), block
        start += len(block)


def frequencies(theta: float, head_dim: int) -> torch.Tensor:
    """Return how fast each pair of a head's values turns with the position, (head_dim / 2,)."""
    return 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)


def _gelu_tanh(x: torch.Tensor) -> torch.Tensor:
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"silu": F.silu, "gelu_tanh": _gelu_tanh}
