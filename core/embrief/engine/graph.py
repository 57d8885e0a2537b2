"""A text model as one module of plain operations on a padded batch, for exporters: the same as `stack.py`, unpacked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from embrief.engine.stack import ACTIVATIONS, frequencies

if TYPE_CHECKING:
    from embrief.engine.checkpoint import Checkpoint
    from embrief.engine.description import LayerKind, TextModel

_HIDDEN = -3e4
"""The score of a key that is not seen. Its weight is zero, and every number format holds it: an infinite one would make
a row of padding, which may see nothing, no number at all."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the layers of one kind need to know of a batch: of all tokens, or of the last one of each text."""

    cos: torch.Tensor
    sin: torch.Tensor
    hidden: torch.Tensor
    """(..., queries, keys) which keys a query does not see."""


class Graph(torch.nn.Module):
    """From token ids to what the head makes of the last token's state, or of the mean of all states.

    In float32. It takes ids (n, tokens), padded on the right with any id, and lengths (n,).
    """

    table: torch.Tensor
    placeholders: torch.Tensor

    def __init__(
        self,
        model: TextModel,
        checkpoint: Checkpoint,
        *,
        mean: bool,
        positions: int,
    ) -> None:
        """Read the weights of the layers.

        Args:
            model: What to compute.
            checkpoint: The weights.
            mean: Whether all states are pooled and not the last token's alone.
            positions: Tokens per text at most. Angles are a table: in bfloat16, far positions would run together.

        Raises:
            ModelMismatchError: Tensors are missing or have the wrong shape.
        """
        super().__init__()
        self.model, self.mean, self.positions = model, mean, positions
        self.head: Callable[[torch.Tensor], torch.Tensor]
        """What becomes of the pooled states, (n, hidden_size). To be set."""
        width = model.hidden_size
        table, norm = checkpoint.read({"embed_tokens.weight": (model.vocabulary, width), "norm.weight": (width,)})
        self.register_buffer("table", table.float())
        self.norm = _Norm(norm, model)
        self.kinds = list(dict.fromkeys(model.layers))
        for number, kind in enumerate(self.kinds):
            angles = torch.arange(positions).float()[:, None] * frequencies(kind.rope_theta, kind.head_dim)
            self.register_buffer(f"cos{number}", angles.cos())
            self.register_buffer(f"sin{number}", angles.sin())
        shares: Sequence[torch.Tensor | None] = [None] * len(model.layers)
        if (inputs := model.layer_inputs) is not None:
            shapes = {inputs.shares: (len(model.layers) * inputs.width, width), inputs.share_norm: (inputs.width,)}
            whole, share_norm = checkpoint.read(shapes)
            shares = torch.chunk(whole, len(model.layers))
            # A norm undoes a factor but for its epsilon.
            self.share_norm = _Norm(share_norm, model, epsilon=model.epsilon / inputs.scale**2)
        made = enumerate(zip(model.layers, shares, strict=True))
        self.layers = [_Layer(model, kind, index, checkpoint, share) for index, (kind, share) in made]
        # What torch looks for weights in.
        self.held = torch.nn.ModuleList(self.layers)
        if model.placeholders is not None:
            self.register_buffer("placeholders", torch.tensor(model.placeholders.ids))

    def forward(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return (n, width) vectors, or (n,) numbers, as the head has them."""
        if self.model.placeholders is not None:
            held = torch.eq(ids[..., None], self.placeholders).any(-1)
            ids = torch.where(held, self.model.placeholders.read_as, ids)
        x = F.embedding(ids, self.table) * self.model.embedding_scale
        rows, last = torch.arange(ids.shape[0]), lengths - 1
        source = x
        seen = {kind: self._seen(number, kind, ids, lengths) for number, kind in enumerate(self.kinds)}
        for number, layer in enumerate(self.layers):
            share, own = None, source
            last_only = None
            if number == len(self.layers) - 1 and not self.mean:
                last_only = rows, last
                own = source[rows, last][:, None]
            if self.model.layer_inputs is not None:
                share = self.share_norm(layer.share(own))
            x = layer(x, seen[layer.kind], share, last_only)
        x = self.norm(x)
        if self.mean:
            there = torch.arange(ids.shape[1]) < lengths[:, None]
            kept = torch.where(there[..., None], x, 0.0)
            pooled = kept.sum(1) / lengths[:, None].float()
        else:
            pooled = x[:, 0]
        return self.head(pooled)

    def _seen(self, number: int, kind: LayerKind, ids: torch.Tensor, lengths: torch.Tensor) -> _Seen:
        tokens = torch.arange(ids.shape[1])
        cos, sin = (getattr(self, f"{name}{number}")[: ids.shape[1]] for name in ("cos", "sin"))
        away = tokens[:, None] - tokens
        if self.model.causal:
            # What is behind a text is padding, and its own tokens do not see it.
            hidden = away < 0
        else:
            hidden = (tokens >= lengths[:, None])[:, None, None]
        if kind.window is not None:
            hidden = hidden | (away.abs() >= kind.window)
        return _Seen(cos, sin, hidden)


class _Norm(torch.nn.Module):
    """x / sqrt(mean(x²) + epsilon), times weights where there are some."""

    weight: torch.Tensor | None

    def __init__(self, weight: torch.Tensor | None, model: TextModel, epsilon: float | None = None) -> None:
        super().__init__()
        self.epsilon = model.epsilon if epsilon is None else epsilon
        self.register_buffer("weight", None if weight is None else weight.float() + model.norm_offset)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # In the words that runtimes look for, to do it in one step.
        normed = x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + self.epsilon)
        return normed if self.weight is None else normed * self.weight


class _Product(torch.nn.Module):
    """x @ weight, which lies as runtimes want it: (inputs, outputs)."""

    weight: torch.Tensor

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight.float().t().contiguous())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight


class _Layer(torch.nn.Module):
    """One layer."""

    def __init__(
        self, model: TextModel, kind: LayerKind, index: int, checkpoint: Checkpoint, share: torch.Tensor | None
    ) -> None:
        super().__init__()
        self.model, self.kind = model, kind
        width, inner, dim = model.hidden_size, model.intermediate_size, kind.head_dim

        def read(name: str, *shape: int) -> torch.Tensor:
            (found,) = checkpoint.read({f"layers.{index}.{name}": shape})
            return found

        self.norms = torch.nn.ModuleDict(
            {place: _Norm(read(f"{name}.weight", width), model) for place, name in model.norms.items()}
        )
        self.q_norm, self.k_norm = (_Norm(read(f"self_attn.{name}_norm.weight", dim), model) for name in "qk")
        self.v_norm = _Norm(None, model) if model.value_norm else None
        own, held = model.heads * dim, kind.kv_heads * dim
        self.queries = _Product(read("self_attn.q_proj.weight", own, width))
        self.keys = _Product(read("self_attn.k_proj.weight", held, width))
        self.values = _Product(read("self_attn.v_proj.weight", held, width))
        self.output = _Product(read("self_attn.o_proj.weight", width, own))
        self.gate = _Product(read("mlp.gate_proj.weight", inner, width))
        self.up = _Product(read("mlp.up_proj.weight", inner, width))
        self.down = _Product(read("mlp.down_proj.weight", width, inner))
        if (inputs := model.layer_inputs) is not None:
            assert share is not None
            self.share = _Product(share)
            self.side_gate = _Product(read(f"{inputs.gate}.weight", inputs.width, width))
            self.side_back = _Product(read(f"{inputs.back}.weight", width, inputs.width))
            self.side_norm = _Norm(read(f"{inputs.norm}.weight", width), model)
        self.scalar = float(read(model.layer_scalar, 1)) if model.layer_scalar is not None else 1.0
        self.act = ACTIVATIONS[model.activation]

    def forward(
        self,
        x: torch.Tensor,
        seen: _Seen,
        share: torch.Tensor | None,
        last_only: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> torch.Tensor:
        """Return the stream (n, tokens, hidden) behind this layer, or (n, 1, hidden) of the tokens that alone count."""
        normed = self.norms["before_attention"](x)
        keys = _turned(self.k_norm(self._by_head(self.keys(normed))), seen.cos, seen.sin)
        values = self._by_head(self.values(normed))
        if self.v_norm is not None:
            values = self.v_norm(values)
        if last_only is not None:
            x, normed = (part[last_only][:, None] for part in (x, normed))
            seen = self._of_last(seen, last_only[1])
        queries = _turned(self.q_norm(self._by_head(self.queries(normed))), seen.cos, seen.sin)
        mixed = self.output(self._attend(queries * self.model.attention_scale, keys, values, seen.hidden))
        if not self.model.sandwich_norms:
            x = x + mixed
            x = x + self._feed_forward(x)
        else:
            x = x + self.norms["after_attention"](mixed)
            x = x + self.norms["after_mlp"](self._feed_forward(x))
        if share is not None:
            x = x + self.side_norm(self.side_back(self.act(self.side_gate(x)) * share))
        return x * self.scalar if self.scalar != 1 else x

    def _of_last(self, seen: _Seen, last: torch.Tensor) -> _Seen:
        away = (last[:, None] - torch.arange(seen.cos.shape[0]))[:, None, None]
        # Behind the last token is padding, whatever tokens see otherwise.
        hidden = away < 0
        if self.kind.window is not None:
            hidden = hidden | (away >= self.kind.window)
        return _Seen(seen.cos[last][:, None, None], seen.sin[last][:, None, None], hidden)

    def _by_head(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n, heads, tokens, head_dim)."""
        return x.reshape(*x.shape[:2], -1, self.kind.head_dim).transpose(1, 2)

    def _feed_forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norms["before_mlp"](x)
        result: torch.Tensor = self.down(self.act(self.gate(y)) * self.up(y))
        return result

    def _attend(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, hidden: torch.Tensor
    ) -> torch.Tensor:
        """Return (n, queries, heads * head_dim). The query heads of one key head are its rows: nothing is repeated."""
        n, heads, count, dim = queries.shape
        held = self.kind.kv_heads
        scores = queries.reshape(n, held, heads // held * count, dim) @ keys.transpose(2, 3)
        scores = scores.reshape(n, heads, count, keys.shape[2])
        weights = torch.where(hidden, _HIDDEN, scores).softmax(-1)
        mixed = weights.reshape(n, held, heads // held * count, keys.shape[2]) @ values
        return mixed.reshape(n, heads, count, dim).transpose(1, 2).reshape(n, count, heads * dim)


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn queries or keys by their positions (rotary embedding, arXiv 2104.09864)."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
