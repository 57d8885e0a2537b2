"""Qwen3-VL on the engine: texts, pictures and both, against transformers' own model on the same checkpoint."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from embrief import Embedder, EmbriefError, Image, ModelMismatchError, Reranker
from embrief.facts.records.qwen3_vl import IMAGES
from embrief.images.patches import fit, patches

from ..vision_models import INSTRUCTION, copied, vision_config

torch = pytest.importorskip("torch")
pytest.importorskip("transformers.models.qwen3_vl")

HEAD = f"<|im_start|>system\n{INSTRUCTION}<|im_end|>\n<|im_start|>user\n"
TAIL = "<|im_end|>\n<|im_start|>assistant\n"
Pixels = np.ndarray
Document = tuple[tuple[Pixels, ...], str]
"""Pictures and what follows them."""
PAIR_HEAD = (
    '<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct provided. '
    'Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n<Instruct>: Given a search query, '
    "retrieve relevant candidates that answer the query.<Query>:"
)


def pixels(height: int, width: int, seed: int = 0) -> Pixels:
    """A picture with large and small structures, so that neither size nor place is the same everywhere."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 200, (-(-height // 16), -(-width // 16), 3))
    whole = np.kron(coarse, np.ones((16, 16, 1), int))[:height, :width]
    return (whole + rng.integers(0, 56, (height, width, 3))).astype(np.uint8)


WIDE, TALL, SQUARE = pixels(32, 128, 1), pixels(160, 64, 2), pixels(96, 96, 3)
ODD = pixels(75, 130, 4)
"""Not of whole tokens: it is fitted first."""
LONG = "The quick brown fox copies directory trees. " * 40
DOCUMENTS: list[Document] = [
    ((), "which planet is red?"),
    ((SQUARE,), ""),
    ((WIDE,), ""),
    ((WIDE,), "a wide picture"),
    ((TALL, WIDE), "two pictures of different sizes"),
    ((WIDE, TALL), "two pictures of different sizes"),
    ((SQUARE, SQUARE, ODD), ""),
    ((), "x"),
    ((ODD,), LONG),
    ((pixels(704, 800, 5),), "more than one block of tokens"),
    ((), LONG),
    ((SQUARE,), "x"),
]


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    one, other = one.astype(np.float64), other.astype(np.float64)
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


def given(document: Document) -> str | tuple[str | Image, ...]:
    """What embrief is handed."""
    shown, text = document
    if not shown:
        return text
    return (*(Image(one) for one in shown), *([text] if text else []))


@lru_cache
def transformers_model(folder: Path, dtype: str, kind: str) -> "torch.nn.Module":
    import transformers

    return getattr(transformers, kind).from_pretrained(folder, dtype=getattr(torch, dtype)).eval()


def fitted(shown: Sequence[Pixels]) -> list[Pixels]:
    return [fit(one, IMAGES.fitted(*one.shape[:2])) for one in shown]


def marks(shown: Sequence[Pixels]) -> str:
    return "".join(f"<|vision_start|>{'<|image_pad|>' * (one.shape[0] * one.shape[1] // 1024)}<|vision_end|>" for one in shown)


def oracle(folder: Path, prompt: str, shown: Sequence[Pixels], dtype: str, kind: str = "AutoModel") -> "torch.Tensor":
    """What transformers' model has at the last token of a prompt."""
    from tokenizers import Tokenizer

    model = transformers_model(folder, dtype, kind)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = torch.tensor([tokenizer.encode(prompt).ids])
    more = {}
    if shown:
        rows = [patches(one, patch=16, merge=2, mean=IMAGES.mean, std=IMAGES.std) for one in shown]
        more = {
            "pixel_values": torch.from_numpy(np.concatenate(rows)),
            "image_grid_thw": torch.tensor([(1, one.shape[0] // 16, one.shape[1] // 16) for one in shown]),
        }
        # Releases before it find the pictures themselves.
        if "mm_token_type_ids" in inspect.signature(model.forward).parameters:
            more["mm_token_type_ids"] = (ids == tokenizer.token_to_id("<|image_pad|>")).int()
    with torch.inference_mode():
        found = model(input_ids=ids, use_cache=False, **more)
    return (found.logits if kind != "AutoModel" else found.last_hidden_state)[0, -1].float()


def vectors(folder: Path, documents: Sequence[Document], dtype: str = "float32") -> np.ndarray:
    found = []
    for shown, text in documents:
        seen = fitted(shown)
        found.append(oracle(folder, f"{HEAD}{marks(seen)}{text}{TAIL}", seen, dtype))
    return torch.nn.functional.normalize(torch.stack(found)).numpy()


@pytest.fixture(scope="module")
def embedder(vision_folder: Path) -> Embedder:
    return Embedder(vision_folder, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def expected(vision_folder: Path) -> np.ndarray:
    return vectors(vision_folder, DOCUMENTS)


def test_vectors_are_those_of_transformers(embedder: Embedder, expected: np.ndarray) -> None:
    found = embedder.embed_documents([given(one) for one in DOCUMENTS])
    print(1 - cosines(found, expected))
    assert cosines(found, expected).min() > 0.99999
    # The test documents differ so much that any mistake shows.
    np.fill_diagonal(alike := expected @ expected.T, 0)
    print(alike.max())
    np.testing.assert_allclose(found, expected, atol=2e-5)
