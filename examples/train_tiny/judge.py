"""Training of the reranker: pairs of a query and a document, with mined negatives and the teacher's opinion of them."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import instructions
import numpy as np
import torch
import torch.nn.functional as F
from student import NEAR, Lessons, descend, encode, optimize
from texts import Item, without
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Qwen3Model

from embrief.facts.records.qwen3 import RERANK_TEMPLATE

QUERIES = 12
"""Queries per step."""
HARD, MIDDLING, OTHER = 2, 2, 2
"""Documents of a query besides its own: the nearest, those that come after them, and any."""
MAX_TOKENS = 160
"""Of a document."""
SHARPNESS = 0.05
SHARES = {"passage": 0.35, "doc": 0.2, "code": 0.2, "definition": 0.1, "entries": 0.15}
"""How often each kind is asked for: most texts are definitions, and these are easily told apart."""


def train(model: Qwen3Model, lessons: Lessons, *, steps: int, seed: int, report: Callable[[str], None]) -> None:
    """Train in place."""
    chance = random.Random(seed)
    items = lessons.items
    twins = _twins(items)
    kinds = {kind: [place for place, item in enumerate(items) if item.kind == kind] for kind in SHARES}
    answers = [lessons.tokenizer.token_to_id(answer) for answer in ("yes", "no")]
    optimizer, schedule = optimize(model, steps, layers=8e-4, tokens=3e-4)
    began, shown, losses, right = time.perf_counter(), 0, list[float](), list[float]()
    for step in range(steps):
        rows: list[list[int]] = []
        opinions: list[list[float]] = []
        for _ in range(QUERIES):
            place, candidates, instruction = _group(chance, lessons, kinds, twins)
            query = items[place].query
            texts = [_without(items[other].query, items[other].text) for other in candidates]
            rows += [_row(lessons.tokenizer, instruction, query, text) for text in texts]
            opinions.append([float(lessons.queries[place] @ lessons.documents[other]) for other in candidates])
        with torch.autocast("cpu", torch.bfloat16):
            states = encode(model, rows)
        weight = model.embed_tokens.weight
        logits = (states @ (weight[answers[0]] - weight[answers[1]])).view(QUERIES, -1)
        losses.append(descend(_loss(logits, torch.tensor(opinions)), model, optimizer, schedule))
        right.append(float((logits.argmax(dim=1) == 0).float().mean()))
        shown += sum(map(len, rows))
        if (step + 1) % 25 == 0:
            rate = shown / (time.perf_counter() - began)
            report(
                f"step {step + 1:5d}  loss {np.mean(losses[-25:]):.4f}  own first {np.mean(right[-25:]):.3f}  "
                f"{rate:,.0f} tokens/s"
            )


def _group(
    chance: random.Random, lessons: Lessons, kinds: Mapping[str, Sequence[int]], twins: Sequence[tuple[int, int]]
) -> tuple[int, list[int], str]:
    """Return the place of a query, of its documents (the right one first), and an instruction."""
    items = lessons.items
    if chance.random() < 0.15:
        # One function's code and docstring: only the instruction tells which is wanted.
        own, other = chance.choice(twins)
        if chance.random() < 0.5:
            own, other = other, own
        instruction, first = instructions.wanting(chance, items[own].kind), [own, other]
    else:
        own = _any(chance, kinds)
        instruction, first = instructions.neutral(chance, chance.random()), [own]
    near = [int(place) for place in lessons.hard[own][:NEAR] if place not in first]
    middling = [int(place) for place in lessons.hard[own][NEAR:] if place not in first]
    found = [
        *first,
        *chance.sample(near, 1 + HARD - len(first)),
        *chance.sample(middling, MIDDLING),
        *(_any(chance, kinds) for _ in range(OTHER)),
    ]
    return own, found, instruction


def _any(chance: random.Random, kinds: Mapping[str, Sequence[int]]) -> int:
    (kind,) = chance.choices(list(SHARES), list(SHARES.values()))
    return chance.choice(kinds[kind])


def _twins(items: Sequence[Item]) -> list[tuple[int, int]]:
    """Return the places of the code and the docstring of each function that has both."""
    places: dict[str, dict[str, int]] = defaultdict(dict)
    for place, item in enumerate(items):
        if item.kind in ("code", "doc"):
            places[item.about][item.kind] = place
    return [(both["code"], both["doc"]) for both in places.values() if len(both) == 2]


def _without(query: str, text: str) -> str:
    """Return a text without the sentence that became its query, if enough is left.

    To find that word for word teaches little. It is gone from every text, so that a gap does not tell the right one.
    """
    rest = without(query, text)
    return rest if len(rest) >= 60 else text


def _row(tokenizer: Tokenizer, instruction: str, query: str, text: str) -> list[int]:
    head = RERANK_TEMPLATE.head.replace("{instruction}", instruction).replace("{query}", query)
    start = tokenizer.encode(head, add_special_tokens=False).ids
    document = tokenizer.encode(text, add_special_tokens=False).ids[:MAX_TOKENS]
    return [*start, *document, *tokenizer.encode(RERANK_TEMPLATE.tail, add_special_tokens=False).ids]


def _loss(logits: Tensor, opinions: Tensor) -> Tensor:
    """Return how far the order of each query's documents, and their probabilities, are from what is wanted."""
    own = torch.zeros_like(logits)
    own[:, 0] = 1.0
    wanted = 0.5 * (opinions / SHARPNESS).softmax(dim=-1) + 0.5 * own
    order = F.kl_div(logits.log_softmax(dim=-1), wanted, reduction="batchmean")
    # Mined documents may well answer too: only the own and the unrelated ones say what is probable.
    certain = torch.cat([logits[:, :1], logits[:, -OTHER:]], dim=1)
    labels = torch.tensor([0.95, *[0.02] * OTHER]).expand_as(certain)
    return order + 0.5 * F.binary_cross_entropy_with_logits(certain, labels)
