"""Training of the tower: a picture's vector among those of all captions. It can be stopped and gone on with."""

from __future__ import annotations

import copy
import hashlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paint
import publish
import torch
from numpy.typing import NDArray
from pictures import Pictures, Split
from sources import TRAINED, Named
from torch import Tensor
from tower import TextModel, Tower

from embrief import Embedder

BATCH = 128
RATE = 1.5e-3
WARM = 200
FALL = 0.25
"""Share of the steps, the last ones, in which the rate falls to nothing: until then a training can be made longer."""
ICONS = 0.35
"""Share of a batch."""
SHARPNESS = 0.05
SOFT = 0.5
"""How much of what a picture is to be near to is all captions, by how near they are to its own."""
SMOOTHING = 0.999
_KEPT_EVERY = 300.0


@dataclass(frozen=True)
class Lessons:
    """What pictures are learnt from, and the vectors they are to have."""

    pictures: Pictures
    items: Sequence[tuple[str, int]]
    """What is learnt: `emoji` or `icon`, and its place."""
    first_icon: int
    styles: Sequence[Sequence[str]]
    """Of each emoji the styles that have it."""
    captions: Sequence[Tensor]
    """Vectors of different texts on each item, (items, values) each."""
    same: Tensor
    """A number per item, equal for equal labels."""


def lessons(pictures: Pictures, split: Split, embedder: Embedder) -> Lessons:
    """Return what is learnt from."""
    items = [*(("emoji", place) for place in split.emoji), *(("icon", place) for place in split.icons)]
    named = [(pictures.emoji if kind == "emoji" else pictures.icons)[place] for kind, place in items]
    labels = [item.label for item in named]
    words = [keywords(item) for item in named]
    both = [f"{label}: {more}" for label, more in zip(labels, words, strict=True)]
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    vectors = (
        embedder.embed_queries(labels), embedder.embed_documents(labels), embedder.embed_documents(both),
        embedder.embed_queries(words),
    )  # fmt: skip
    return Lessons(
        pictures,
        items,
        len(split.emoji),
        [[style for style in TRAINED if pictures.has(style, place)] for place in split.emoji],
        [torch.from_numpy(found) for found in vectors],
        torch.tensor([numbers[label] for label in labels]),
    )


def keywords(item: Named) -> str:
    """Return the first keywords, or the label where there are none."""
    return ", ".join(item.keywords[:4]).lower() or item.label


class Training:
    """A tower on its way, with all that the next step needs."""

    def __init__(self, found: Lessons, text: TextModel, *, steps: int, seed: int, start: Path | None) -> None:
        """Begin.

        Args:
            found: What to learn.
            text: What reads the tower's tokens.
            steps: How many there will be in all.
            seed: For weights and choices.
            start: The tower that an earlier training ended with; `None` for one by chance.
        """
        torch.manual_seed(seed)
        # Numbers near zero would cost more than half of the time.
        torch.set_flush_denormal(True)
        self._chance = random.Random(seed)
        self._lessons, self._text, self._steps = found, text, steps
        self.tower = Tower()
        self.start = "" if start is None else hashlib.sha256(start.read_bytes()).hexdigest()
        if start is not None:
            self.tower.load_state_dict(publish.read(start))
        self.smoothed = copy.deepcopy(self.tower).requires_grad_(requires_grad=False)
        self.step = 0
        parameters = list(self.tower.parameters())
        self._optimizer = torch.optim.AdamW(
            [
                {"params": [value for value in parameters if value.ndim > 1], "weight_decay": 0.05},
                {"params": [value for value in parameters if value.ndim == 1], "weight_decay": 0.0},
            ],
            lr=RATE,
            betas=(0.9, 0.98),
            fused=True,
        )

    def go_on(self, kept: Path, *, minutes: float, report: Callable[[str], None]) -> bool:
        """Train from where `kept` has it, for so long at most; return whether all steps are done."""
        if kept.exists():
            self._load(torch.load(kept, weights_only=False))
        began = saved = shown = time.perf_counter()
        first, losses = self.step, list[float]()
        while self.step < self._steps and time.perf_counter() - began < 60 * minutes:
            losses.append(self._learn())
            now = time.perf_counter()
            if now - saved > _KEPT_EVERY:
                self._save(kept)
                saved = now
            if now - shown > 60:
                rate = (now - began) / (self.step - first)
                report(f"step {self.step:6d} of {self._steps}  loss {np.mean(losses[-200:]):.3f}  {rate:.3f} s/step")
                shown = now
        self._save(kept)
        return self.step >= self._steps

    def vectors(self, rgba: NDArray[np.uint8]) -> Tensor:
        """Return the vectors of drawings on white, (n, side, side, 4) to (n, values)."""
        drawn = torch.from_numpy(rgba).permute(0, 3, 1, 2)
        with torch.inference_mode():
            return torch.cat([self._text(self.smoothed(paint.plain(part))) for part in drawn.split(256)])

    def _learn(self) -> float:
        left = (self._steps - self.step) / (FALL * self._steps)
        rate = RATE * min(1.0, (self.step + 1) / WARM, left)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        places = torch.tensor([self._draw() for _ in range(BATCH)])
        vectors = self._text(self.tower(paint.varied(self._drawings(places.tolist()))))
        captions = self._lessons.captions[self._chance.choice([0, 0, 1, 2, 3])]
        loss = _loss(vectors, places, captions, self._lessons.same)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parameters = list(self.tower.parameters())
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        self._optimizer.step()
        kept = min(SMOOTHING, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.smoothed.parameters()), parameters, 1 - kept)
        self.step += 1
        return float(loss.detach())

    def _draw(self) -> int:
        icons = self._chance.random() < ICONS
        first, stop = (self._lessons.first_icon, len(self._lessons.items)) if icons else (0, self._lessons.first_icon)
        return self._chance.randrange(first, stop)

    def _drawings(self, places: Sequence[int]) -> Tensor:
        pictures = self._lessons.pictures
        side = pictures.shapes.shape[1]
        rgba = np.zeros((len(places), side, side, 4), np.uint8)
        for row, place in enumerate(places):
            kind, own = self._lessons.items[place]
            if kind == "emoji":
                rgba[row] = pictures.styles[self._chance.choice(self._lessons.styles[place])][own]
            else:
                if self._chance.random() < 0.7:
                    rgba[row, ..., :3] = [self._chance.randrange(256) for _ in range(3)]
                rgba[row, ..., 3] = pictures.shapes[own]
        return torch.from_numpy(rgba).permute(0, 3, 1, 2)

    def _save(self, kept: Path) -> None:
        state: dict[str, Any] = {
            "step": self.step,
            "steps": self._steps,
            "start": self.start,
            "tower": self.tower.state_dict(),
            "smoothed": self.smoothed.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "chance": self._chance.getstate(),
            "torch": torch.get_rng_state(),
        }
        part = kept.with_name(f"part-{kept.name}")
        torch.save(state, part)
        part.replace(kept)

    def _load(self, state: dict[str, Any]) -> None:
        if state["steps"] != self._steps and state["step"] > (1 - FALL) * min(state["steps"], self._steps):
            raise SystemExit(f"at the end of this training of {state['steps']} steps it can get no other length")
        if self.start not in ("", state["start"]):
            raise SystemExit("the training in this folder began otherwise; take another folder, or leave out --start")
        self.start = state["start"]
        self.tower.load_state_dict(state["tower"])
        self.smoothed.load_state_dict(state["smoothed"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._chance.setstate(state["chance"])
        torch.set_rng_state(state["torch"])
        self.step = state["step"]


def _loss(vectors: Tensor, places: Tensor, captions: Tensor, same: Tensor) -> Tensor:
    """Return how far pictures are from their captions, and from how near all captions are to those.

    Args:
        vectors: Of the pictures, (n, values).
        places: Which items they show, (n).
        captions: Of all items, (items, values).
        same: A number per item, equal for equal labels.
    """
    own = captions[places]
    hard = (same[None] == same[places][:, None]).float()
    hard /= hard.sum(1, keepdim=True)
    wanted = (1 - SOFT) * hard + SOFT * (own @ captions.T / SHARPNESS).softmax(-1)
    scores = (vectors @ captions.T / SHARPNESS).log_softmax(-1)
    return -(wanted * scores).sum(1).mean() + 1 - (vectors * own).sum(1).mean()
