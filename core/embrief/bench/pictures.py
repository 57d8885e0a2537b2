"""Pictures as workloads, and transformers' own model on them: what embrief is compared with where texts hold pictures.

sentence-transformers reads pictures only beside torchvision, which few have; transformers' model needs none. Both sides
get the same pixels and the same token ids, and pictures are made into patches by the same code.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from embrief.bench.runners import DEFAULT_BATCH, Result, collect, dtype_of, quiet
from embrief.bench.texts import chunk_lengths, encode, load_tokenizer, make_texts
from embrief.bench.workloads import Workload
from embrief.images.image import Image
from embrief.images.patches import fit, patches

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from embrief.bench.checkpoint import Checkpoint
    from embrief.bench.settings import Sizes
    from embrief.bench.workloads import Name
    from embrief.facts.specs import ImageSpec

_COARSE = 16
"""Pixels per side of the squares that a made picture has, beside its noise."""


def build_pictures(name: Name, checkpoint: Checkpoint, sizes: Sizes) -> Workload:
    """Return a workload with pictures. The same model gives the same every time."""
    if name == "ranked":
        return _pairs(checkpoint, sizes)
    from embrief import Embedder

    tokenizer = load_tokenizer(checkpoint.folder)
    with Embedder(checkpoint.folder) as embedder:
        spec = embedder.spec.images
        assert spec is not None
        if name == "mixed":
            lengths = chunk_lengths(sizes.mixed, seed=7)
            texts = make_texts(tokenizer, lengths, lambda text: text, seed=8)
            # A third each: a text, a picture with a text, a small picture alone.
            small = (sizes.photo[0] // 2, sizes.photo[1] // 2)
            shown = [(None, made(sizes.photo, place), made(small, place))[place % 3] for place in range(len(texts))]
            texts = ["" if place % 3 == 2 else text for place, text in enumerate(texts)]
        else:
            size, count = (sizes.photo, sizes.photos) if name == "photos" else (sizes.page, sizes.pages)
            shown, texts = [made(size, place) for place in range(count)], [""] * count
        rendered = [
            spelled([embedder.render(_input(text, image), role="document")], [image], spec)
            for text, image in zip(texts, shown, strict=True)
        ]
    ids = tuple(map(tuple, encode(tokenizer, rendered)))
    return Workload("document", tuple(texts), tuple(rendered), ids, shown=tuple(shown))


def _pairs(checkpoint: Checkpoint, sizes: Sizes) -> Workload:
    from embrief import Reranker

    tokenizer = load_tokenizer(checkpoint.folder)
    (query,) = make_texts(tokenizer, [14], lambda text: text, seed=9)
    shown = [made(sizes.page, place) for place in range(sizes.ranked)]
    with Reranker(checkpoint.folder) as reranker:
        spec = reranker.spec.images
        assert spec is not None
        rendered = [spelled([reranker.render(query, image).shown], [image], spec) for image in shown]
    ids = tuple(map(tuple, encode(tokenizer, rendered)))
    return Workload("pair", ("",) * len(shown), tuple(rendered), ids, query, shown=tuple(shown))


def made(size: tuple[int, int], seed: int) -> Image:
    """Return a picture of squares with noise, of this height and width."""
    numbers = np.random.default_rng(seed)
    height, width = size
    coarse = numbers.integers(0, 200, (-(-height // _COARSE), -(-width // _COARSE), 3))
    whole = np.kron(coarse, np.ones((_COARSE, _COARSE, 1), np.int64))[:height, :width]
    return Image((whole + numbers.integers(0, 56, (height, width, 3))).astype(np.uint8))


def unseen(work: Workload, turn: int) -> Workload:
    """Return a workload with other pictures in each turn, as large as these: the engine computes equal ones once.

    Args:
        work: The workload; one without pictures stays as it is.
        turn: 0 leaves the pictures as they are.
    """
    return work if turn == 0 else replace(work, shown=tuple(image and _marked(image, turn) for image in work.shown))


def _marked(image: Image, turn: int) -> Image:
    pixels = image.pixels.copy()
    # Larger than a pixel, so that it is there when the picture has been made smaller.
    pixels[:_COARSE, :_COARSE] = (turn % 256, 255, 0)
    return Image(pixels)


def spelled(prompts: Sequence[str], shown: Sequence[Image | None], spec: ImageSpec) -> str:
    """Return a prompt with as many marks for its picture as the picture has tokens."""
    (prompt,), (image,) = prompts, shown
    return prompt if image is None else prompt.replace(spec.pad, spec.pad * spec.tokens(*image.size), 1)


class TransformersModel:
    """transformers' own model of Qwen3-VL, called as its authors' code calls it: padded batches, the last state."""

    def __init__(self, folder: Path, dtype: str | None, device: str) -> None:
        import transformers
        from tokenizers import Tokenizer

        from embrief import Embedder, Reranker
        from embrief.bench.checkpoint import Checkpoint

        self._pairs = Checkpoint.kind_of(folder) == "reranker"
        with (Reranker if self._pairs else Embedder)(folder) as facade:
            spec = facade.spec.images
            assert spec is not None
            self._spec: ImageSpec = spec
        kind = "Qwen3VLForConditionalGeneration" if self._pairs else "AutoModel"
        with quiet():
            self._model: Any = getattr(transformers, kind).from_pretrained(
                folder, dtype=dtype or "auto", local_files_only=True
            )
        self._model.to(device).eval()
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._device = device

    @property
    def dtype(self) -> str:
        """The number format it computes in."""
        return dtype_of(self._model)

    def ids(self, work: Workload) -> list[list[int]]:
        """Return the token ids that reach the model."""
        return encode(self._tokenizer, work.rendered)

    def run(self, work: Workload, batch_size: int | None = None) -> Result:
        """Return vectors, or probabilities of pairs."""
        size = batch_size or DEFAULT_BATCH
        found = [self._batch(work, places) for places in _batches(work, size)]
        order = [place for places in _batches(work, size) for place in places]
        values = np.concatenate(found)
        back = np.empty_like(values)
        back[order] = values
        return back

    def _batch(self, work: Workload, places: Sequence[int]) -> NDArray[np.float32]:
        import torch

        rows = [work.ids[place] for place in places]
        most = max(map(len, rows))
        pad = self._id("<|endoftext|>")
        # On the left, so that the last state is that of the last token of each.
        ids = torch.tensor([[pad] * (most - len(row)) + list(row) for row in rows], device=self._device)
        kept = torch.tensor([[0] * (most - len(row)) + [1] * len(row) for row in rows], device=self._device)
        more: dict[str, Any] = {}
        if images := [image for place in places if (image := work.shown[place]) is not None]:
            seen = [fit(image.pixels, self._spec.fitted(*image.size)) for image in images]
            made = [
                patches(one, patch=self._spec.patch, merge=self._spec.merge, mean=self._spec.mean, std=self._spec.std)
                for one in seen
            ]
            values = torch.from_numpy(np.concatenate(made)).to(self._device, self._model.dtype)
            sides = [(1, one.shape[0] // self._spec.patch, one.shape[1] // self._spec.patch) for one in seen]
            more = {"pixel_values": values, "image_grid_thw": torch.tensor(sides, device=self._device)}
            # Releases before it find the pictures themselves.
            if "mm_token_type_ids" in inspect.signature(self._model.forward).parameters:
                more["mm_token_type_ids"] = torch.eq(ids, self._id(self._spec.pad)).int()
        if self._pairs:
            more["logits_to_keep"] = 1
        with torch.inference_mode():
            out = self._model(input_ids=ids, attention_mask=kept, use_cache=False, **more)
        if not self._pairs:
            return np.asarray(torch.nn.functional.normalize(out.last_hidden_state[:, -1].float()).cpu())
        yes, no = (self._id(word) for word in ("yes", "no"))
        logits = out.logits[:, -1].float()
        return np.asarray(torch.sigmoid(logits[:, yes] - logits[:, no]).cpu())

    def _id(self, token: str) -> int:
        found = self._tokenizer.token_to_id(token)
        assert found is not None
        return int(found)

    def close(self) -> None:
        """Free the model."""
        self._model = None
        collect()


def _batches(work: Workload, size: int) -> Iterator[list[int]]:
    """Yield the places of each batch, long rows first, as sentence-transformers does it."""
    order = sorted(range(len(work.ids)), key=lambda place: -len(work.ids[place]))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _input(text: str, image: Image | None) -> Any:
    return text if image is None else (image, text) if text else image
