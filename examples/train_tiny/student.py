"""Training of the embedding model: the teacher's geometry, at every width, for queries with their prompts."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import instructions
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from texts import Item
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Qwen3Model

Floats = NDArray[np.float32]
WIDTHS = {32: 1.0, 64: 2.0, 128: 1.0, 256: 1.5}
"""Widths that are trained, and what each weighs."""
MAX_TOKENS = 224
SEEDS = 64
"""Queries per step; each comes with its own document and a mined one."""
NEAR = 8
"""Mined documents of a query that come into a batch."""
SHARES = {"passage": 0.4, "doc": 0.18, "code": 0.12, "definition": 0.15, "entries": 0.15}
"""How often each kind is asked for: most texts are definitions, which are short and easily told apart."""
SHARPNESS = 0.05
"""Temperature of the distributions over a batch's documents."""


@dataclass(frozen=True)
class Lessons:
    """All that training needs to know, in memory."""

    items: Sequence[Item]
    tokenizer: Tokenizer
    queries: Floats
    """The teacher's vectors, (items, 384)."""
    documents: Floats
    hard: NDArray[np.int32]
    """For each item, documents that the teacher finds near its query, nearest first, (items, NEAR and more)."""


def mine(queries: Floats, documents: Floats, *, first: int = 2, count: int = NEAR + 40) -> NDArray[np.int32]:
    """Return for each query the places of documents that rank `first` and lower with the teacher, its own left out."""
    found = np.empty((len(queries), count), np.int32)
    there = torch.from_numpy(documents).to(torch.bfloat16)
    for begin in range(0, len(queries), 1024):
        part = torch.from_numpy(queries[begin : begin + 1024]).to(torch.bfloat16)
        scores = (part @ there.T).float()
        own = torch.arange(begin, begin + len(part))
        scores[torch.arange(len(part)), own] = -2.0
        found[begin : begin + len(part)] = scores.topk(first + count).indices[:, first:].numpy()
    return found


def encode(model: Qwen3Model, ids: Sequence[Sequence[int]], *, tokens: int = 4096) -> Tensor:
    """Return the state of each text's last token, (texts, 256), from batches of texts of like lengths."""
    order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
    states: list[Tensor] = []
    begin = 0
    while begin < len(order):
        stop = begin + 1
        while stop < len(order) and len(ids[order[stop]]) * (stop + 1 - begin) <= tokens:
            stop += 1
        rows = [ids[place] for place in order[begin:stop]]
        width = len(rows[-1])
        # Padding on the right of a causal model is seen by nothing that is read.
        padded = torch.zeros((len(rows), width), dtype=torch.long)
        for place, row in enumerate(rows):
            padded[place, : len(row)] = torch.as_tensor(row)
        hidden = model(input_ids=padded).last_hidden_state
        states.append(hidden[torch.arange(len(rows)), [len(row) - 1 for row in rows]].float())
        begin = stop
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.as_tensor(order)] = torch.arange(len(order))
    return torch.cat(states)[back]


def train(
    model: Qwen3Model, lessons: Lessons, axes: Floats, *, steps: int, seed: int, report: Callable[[str], None]
) -> None:
    """Train in place."""
    chance = random.Random(seed)
    order = _order([item.kind for item in lessons.items], steps * SEEDS, chance)
    moves = instructions.shifts([item.kind for item in lessons.items], lessons.documents)
    optimizer, schedule = optimize(model, steps, layers=1.5e-3, tokens=5e-4)
    began, shown, losses = time.perf_counter(), 0, list[float]()
    for step in range(steps):
        places = order[step * SEEDS : (step + 1) * SEEDS]
        asked = [instructions.draw(chance, lessons.items[place].kind) for place in places]
        extra = [int(chance.choice(lessons.hard[place][:NEAR])) for place in places]
        known = list(dict.fromkeys([*places, *extra]))
        texts = [f"{ask.prefix}{lessons.items[place].query}" for ask, place in zip(asked, places, strict=True)]
        rows = _rows(lessons.tokenizer, [*texts, *(lessons.items[place].text for place in known)])
        teacher_q = lessons.queries[places] + np.stack([moves[ask.kind] for ask in asked])
        teacher_q /= np.linalg.norm(teacher_q, axis=1, keepdims=True)
        teacher_d = lessons.documents[known]
        with torch.autocast("cpu", torch.bfloat16):
            states = encode(model, rows)
        own = torch.tensor([known.index(place) for place in places])
        loss = _loss(states, own, torch.from_numpy(teacher_q), torch.from_numpy(teacher_d), axes)
        losses.append(descend(loss, model, optimizer, schedule))
        shown += sum(map(len, rows))
        if (step + 1) % 25 == 0:
            rate = shown / (time.perf_counter() - began)
            report(f"step {step + 1:5d}  loss {np.mean(losses[-25:]):.4f}  {rate:,.0f} tokens/s")


def optimize(
    model: torch.nn.Module, steps: int, *, layers: float, tokens: float
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return AdamW with a rate for the layers and one for token vectors, and a warm-up followed by half a cosine."""
    embedded = [value for name, value in model.named_parameters() if "embed_tokens" in name]
    matrices = [value for name, value in model.named_parameters() if "embed_tokens" not in name and value.ndim > 1]
    others = [value for value in model.parameters() if value.ndim == 1]
    groups = [
        {"params": matrices, "lr": layers, "weight_decay": 0.02},
        {"params": embedded, "lr": tokens, "weight_decay": 0.0},
        {"params": others, "lr": layers, "weight_decay": 0.0},
    ]
    warm = max(steps // 20, 1)

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))

    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def descend(
    loss: Tensor,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> float:
    """Take one step and return the loss."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    return float(loss.detach())


def _loss(states: Tensor, own: Tensor, teacher_q: Tensor, teacher_d: Tensor, axes: Floats) -> Tensor:
    """Return how far the student's vectors are from the teacher's, and its rankings at each width.

    Args:
        states: Of the queries, then of the documents.
        own: For each query, which document it was made from.
        teacher_q: What the queries' vectors should be, in the teacher's values.
        teacher_d: The teacher's vectors of the documents.
        axes: From the teacher's values to the student's.
    """
    asked = len(own)
    targets = F.normalize(torch.cat([teacher_q, teacher_d]) @ torch.from_numpy(axes), dim=-1)
    full = F.normalize(states, dim=-1)
    near = 1.0 - (full[:, : targets.shape[1]] * targets).sum(dim=-1).mean()
    wanted = (teacher_q @ teacher_d.T / SHARPNESS).softmax(dim=-1)
    # The document that a query was made from answers it, whatever the teacher says.
    wanted = 0.8 * wanted + 0.2 * F.one_hot(own, len(teacher_d))
    alike = (teacher_d @ teacher_d.T / SHARPNESS).softmax(dim=-1)
    ranked = states.new_zeros(())
    for width, weight in WIDTHS.items():
        cut = F.normalize(states[:, :width], dim=-1)
        queries, documents = cut[:asked], cut[asked:]
        apart = _divergence(queries @ documents.T, wanted) + 0.5 * _divergence(documents @ documents.T, alike)
        ranked = ranked + weight * apart
    # No more weight: `near` ties the vectors to the teacher's axes, where short prefixes need others.
    return 1.5 * near + ranked / sum(WIDTHS.values())


def _divergence(scores: Tensor, wanted: Tensor) -> Tensor:
    return F.kl_div((scores / SHARPNESS).log_softmax(dim=-1), wanted, reduction="batchmean")


def _rows(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    end = tokenizer.token_to_id("<|endoftext|>")
    return [[*encoding.ids[: MAX_TOKENS - 1], end] for encoding in tokenizer.encode_batch(list(texts))]


def _order(kinds: Sequence[str], wanted: int, chance: random.Random) -> list[int]:
    """Return places in random order, each kind by its share; all of a kind come before any comes again."""
    places = {kind: [place for place, other in enumerate(kinds) if other == kind] for kind in SHARES}
    left: dict[str, list[int]] = {kind: [] for kind in SHARES}
    order: list[int] = []
    for kind in chance.choices(list(SHARES), list(SHARES.values()), k=wanted):
        if not left[kind]:
            left[kind] = chance.sample(places[kind], len(places[kind]))
        order.append(left[kind].pop())
    return order
