"""Qwen3-VL on the engine: texts, pictures and both, against transformers' own model on the same checkpoint."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Sequence
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
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct provided. "
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
    return "".join(
        f"<|vision_start|>{'<|image_pad|>' * (one.shape[0] * one.shape[1] // 1024)}<|vision_end|>" for one in shown
    )


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
    assert cosines(found, expected).min() > 0.99999
    np.testing.assert_allclose(found, expected, atol=2e-5)
    # Two of them differ in the order of their pictures only, and are still apart.
    assert np.triu(expected @ expected.T, 1).max() < 0.999


def test_a_picture_alone_in_company_and_in_any_order_is_one_vector(embedder: Embedder) -> None:
    documents = [given(one) for one in DOCUMENTS]
    together = embedder.embed_documents(documents)
    alone = np.concatenate([embedder.embed_documents([one]) for one in documents])
    assert cosines(together, alone).min() > 0.9999999
    order = np.random.default_rng(0).permutation(len(documents))
    assert cosines(embedder.embed_documents([documents[place] for place in order]), together[order]).min() > 0.9999999


def test_texts_are_those_of_the_text_model_alone(vision_folder: Path, embedder: Embedder, tmp_path: Path) -> None:
    """The language model's tensors in a plain Qwen3 checkpoint: no position, no prefix and no block differs."""
    from safetensors.torch import load_file, save_file
    from transformers import Qwen3Config, Qwen3Model

    whole = json.loads((vision_folder / "config.json").read_text("utf-8"))["text_config"]
    kept = {key: value for key, value in whole.items() if key not in ("rope_scaling", "model_type")}
    tensors = load_file(vision_folder / "model.safetensors")
    prefix = "model.language_model."
    text = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    model = Qwen3Model(Qwen3Config(**kept)).eval()
    model.load_state_dict(text, strict=True)
    model.save_pretrained(tmp_path / "text")
    for file in vision_folder.glob("tokenizer*"):
        shutil.copy(file, tmp_path / "text")
    shutil.copytree(vision_folder / "1_Pooling", tmp_path / "text" / "1_Pooling")
    shutil.copy(vision_folder / "modules.json", tmp_path / "text")
    save_file(text, tmp_path / "text" / "model.safetensors")
    texts = [text for shown, text in DOCUMENTS if not shown]
    alone = Embedder(tmp_path / "text", dtype="float32", device="cpu")
    expected = alone.embed_documents([f"{HEAD}{text}{TAIL}" for text in texts])
    # The text model's own record has no prompt for documents, so nothing of them is shared there: at most a rounding.
    np.testing.assert_allclose(embedder.embed_documents(texts), expected, atol=1e-6)
    # Between pictures in one batch, too.
    found = embedder.embed_documents([texts[0], (Image(SQUARE), "x"), texts[1]])[[0, 2]]
    np.testing.assert_allclose(found, expected[:2], atol=1e-6)


def test_a_long_prompt_is_shared_and_the_pictures_behind_it_stand_where_they_should(
    embedder: Embedder, vision_folder: Path
) -> None:
    instruction = "Find the picture that shows what the text says, whatever language it is written in."
    shown = fitted((TALL, WIDE))
    found = np.stack([embedder.embed_query((*map(Image, shown), f"{n}"), instruction=instruction) for n in range(2)])
    prompt = HEAD.replace(INSTRUCTION, instruction)
    wanted = [oracle(vision_folder, f"{prompt}{marks(shown)}{n}{TAIL}", shown, "float32").numpy() for n in range(2)]
    assert cosines(found, np.stack(wanted)).min() > 0.99999


@pytest.mark.parametrize(("dtype", "least"), [("bfloat16", 0.9995), ("int8", 0.998)])
def test_shorter_numbers_stay_close(dtype: str, least: float, vision_folder: Path, expected: np.ndarray) -> None:
    try:
        made = Embedder(vision_folder, dtype=dtype, device="cpu")
        found = made.embed_documents([given(one) for one in DOCUMENTS])
    except EmbriefError as error:
        if dtype == "int8":
            pytest.skip(f"this processor lacks the product: {error}")
        raise
    # Of pictures as of texts: in int8 the tower stays in the format in between.
    assert cosines(found, expected).min() > least


def scores(folder: Path, pairs: Sequence[tuple[Document, Document]], dtype: str = "float32") -> np.ndarray:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    yes, no = (tokenizer.token_to_id(word) for word in ("yes", "no"))
    found = []
    for (asked, query), (shown, text) in pairs:
        before, behind = fitted(asked), fitted(shown)
        prompt = f"{PAIR_HEAD}{marks(before)}{query}\n<Document>:{marks(behind)}{text}{TAIL}"
        logits = oracle(folder, prompt, [*before, *behind], dtype, "Qwen3VLForConditionalGeneration")
        found.append(float(logits[yes] - logits[no]))
    return np.array(found)


QUERIES: list[Document] = [((), "which planet is red?"), ((SQUARE,), ""), ((TALL,), "what is it?")]


def test_scores_are_those_of_transformers(vision_reranker_folder: Path) -> None:
    reranker = Reranker(vision_reranker_folder, dtype="float32", device="cpu")
    for query in QUERIES:
        found = reranker.score(given(query), [given(one) for one in DOCUMENTS])
        wanted = scores(vision_reranker_folder, [(query, one) for one in DOCUMENTS])
        np.testing.assert_allclose(np.log(found / (1 - found)), wanted, atol=1e-4)
        assert np.ptp(wanted) > 0.1
