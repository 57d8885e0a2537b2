"""Qwen3-VL on the engine: texts, pictures and both, against transformers' own model on the same checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from embrief import Embedder, EmbriefError, Image, ModelMismatchError, Reranker
from embrief.engine.description import UnsupportedError, describe
from embrief.facts.records.qwen3_vl import IMAGES
from embrief.files.json_files import JsonObject, read_object
from embrief.images.patches import fit

from ..vision_models import INSTRUCTION, edited, model_inputs

torch = pytest.importorskip("torch")
pytest.importorskip("transformers.models.qwen3_vl")

HEAD = f"<|im_start|>system\n{INSTRUCTION}<|im_end|>\n<|im_start|>user\n"
TAIL = "<|im_end|>\n<|im_start|>assistant\n"
Pixels = np.ndarray
Document = tuple[tuple[Pixels, ...], str]
"""Pictures and what follows them."""
PAIR_HEAD = (
    "<|im_start|>system\n"
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
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
def transformers_model(folder: Path, dtype: str, kind: str) -> torch.nn.Module:
    import transformers

    return getattr(transformers, kind).from_pretrained(folder, dtype=getattr(torch, dtype)).eval()


def fitted(shown: Sequence[Pixels]) -> list[Pixels]:
    return [fit(one, IMAGES.fitted(*one.shape[:2])) for one in shown]


def marks(shown: Sequence[Pixels]) -> str:
    return "".join(
        f"<|vision_start|>{'<|image_pad|>' * (one.shape[0] * one.shape[1] // 1024)}<|vision_end|>" for one in shown
    )


def oracle(folder: Path, prompt: str, shown: Sequence[Pixels], dtype: str, kind: str = "AutoModel") -> torch.Tensor:
    """What transformers' model has at the last token of a prompt."""
    from tokenizers import Tokenizer

    model = transformers_model(folder, dtype, kind)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids, pad = tokenizer.encode(prompt).ids, tokenizer.token_to_id("<|image_pad|>")
    with torch.inference_mode():
        found = model(**model_inputs(model, ids, pad, shown, IMAGES))
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


def test_texts_are_those_of_the_text_model_alone(
    vision_folder: Path, embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    # Where neither shares a prompt, not even that.
    monkeypatch.setattr("embrief.runtimes.engine._SHORTEST_PREFIX", 10**6)
    np.testing.assert_array_equal(embedder.embed_documents(texts), expected)


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


ROPE = {"rope_scaling": None, "rope_theta": None}
SECTIONS = {"mrope_section": [4, 2, 2], "mrope_interleaved": True, "rope_type": "default"}
AXIAL = {"rope_type": "axial"}
YARN = {**SECTIONS, "rope_type": "yarn", "factor": 4.0}
CHANGES: dict[str, dict[str, object]] = {
    "nothing": {},
    "positions in the newer key": {"text_config": {**ROPE, "rope_parameters": {**SECTIONS, "rope_theta": 900.0}}},
    "other sections": {"text_config": {"rope_scaling": {**SECTIONS, "mrope_section": [2, 4, 2]}}},
    "height alone": {"text_config": {"rope_scaling": {**SECTIONS, "mrope_section": [0, 8, 0]}}},
    "no word of the order": {"text_config": {"rope_scaling": {"mrope_section": [4, 2, 2], "type": "default"}}},
    "one position taken": {"vision_config": {"deepstack_visual_indexes": [2]}},
    "nothing taken": {"vision_config": {"deepstack_visual_indexes": []}},
    "vision positions of another base": {
        "vision_config": {
            "model_type": "qwen3_vl_vision",
            "rope_parameters": {"rope_type": "axial", "rope_theta": 50.0},
        }
    },
    "wide epsilon": {"text_config": {"rms_norm_eps": 0.1}},
    "no output layer named": {"tie_word_embeddings": None},
}
REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "sections in a row": ({"text_config": {"rope_scaling": {**SECTIONS, "mrope_interleaved": False}}}, "interleaved"),
    "sections of another head": ({"text_config": {"rope_scaling": {**SECTIONS, "mrope_section": [24, 20, 20]}}}, "8"),
    "stretched positions": (
        {"text_config": {"rope_scaling": YARN}},
        "yarn",
    ),
    "no base": ({"text_config": {"rope_theta": None}}, "rope_theta"),
    "unknown key of the text": ({"text_config": {"logit_scale": 2.0}}, "logit_scale"),
    "unknown key of the tower": ({"vision_config": {"window_size": 112}}, "window_size"),
    "unknown key": ({"projector_hidden_act": "gelu"}, "projector_hidden_act"),
    "another tower": ({"vision_config": {"model_type": "qwen2_5_vl"}}, "qwen2_5_vl"),
    "another text model": ({"text_config": {"model_type": "qwen3_vl_moe_text"}}, "qwen3_vl_moe_text"),
    "another activation": ({"vision_config": {"hidden_act": "silu"}}, "silu"),
    "grey pictures": ({"vision_config": {"in_channels": 1}}, "in_channels"),
    "three frames": ({"vision_config": {"temporal_patch_size": 3}}, "temporal_patch_size"),
    "taken in another order": ({"vision_config": {"deepstack_visual_indexes": [1, 0]}}, "ascending"),
    "taken after layers that are not there": ({"vision_config": {"deepstack_visual_indexes": [0, 3]}}, "ascending"),
    "more taken than layers": ({"vision_config": {"deepstack_visual_indexes": [0, 1, 2]}}, "at most"),
    "no square of positions": ({"vision_config": {"num_position_embeddings": 35}}, "square"),
    "heads that do not fit": ({"vision_config": {"num_heads": 3}}, "heads"),
    "tokens of another width": ({"vision_config": {"out_hidden_size": 64}}, "64"),
    "positions of another kind": ({"vision_config": {"rope_parameters": {"rope_type": "golden"}}}, "rope_parameters"),
    "no tower": ({"vision_config": None}, "vision_config"),
    "no object": ({"vision_config": [1]}, "object"),
    "patches of lists": ({"vision_config": {"patch_size": [16, 16]}}, "config.json"),
}


def without_merger(folder: Path, number: int) -> None:
    """Take a merger of the vision tower out of the weights."""
    from safetensors.torch import load_file, save_file

    kept = load_file(folder / "model.safetensors")
    gone = f"model.visual.deepstack_merger_list.{number}."
    save_file({name: one for name, one in kept.items() if not name.startswith(gone)}, folder / "model.safetensors")


@pytest.mark.parametrize("case", CHANGES)
def test_whatever_config_json_says_vectors_are_the_oracles(case: str, vision_folder: Path, other_folder: Path) -> None:
    from transformers import Qwen3VLConfig

    if "vision positions" in case and not hasattr(Qwen3VLConfig().vision_config, "rope_parameters"):
        pytest.skip("this release of transformers has one base for all towers")
    shutil.copytree(vision_folder, other_folder)
    config = edited(json.loads((other_folder / "config.json").read_text("utf-8")), CHANGES[case])
    (other_folder / "config.json").write_text(json.dumps(config), "utf-8")
    taken = config["vision_config"]["deepstack_visual_indexes"]
    for number in range(len(taken), 2):
        without_merger(other_folder, number)
    documents = [DOCUMENTS[place] for place in (0, 3, 4, 6)]
    found = Embedder(other_folder, dtype="float32", device="cpu").embed_documents([given(one) for one in documents])
    assert cosines(found, vectors(other_folder, documents)).min() > 0.99999


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_engine_does_not_run_is_refused(case: str, vision_folder: Path) -> None:
    changes, named = REFUSED[case]
    config = json.loads((vision_folder / "config.json").read_text("utf-8"))
    with pytest.raises((UnsupportedError, ModelMismatchError), match=named):
        describe(JsonObject(edited(config, changes), vision_folder / "config.json"))


def test_the_published_config_is_described(data: Path) -> None:
    file = data / "tokenizers" / "qwen3-vl-embedding-8b" / "config.json"
    model = describe(read_object(file))
    assert model.sections == (24, 20, 20)
    assert model.vision is not None
    assert (model.vision.layers, model.vision.head_dim, model.vision.side, model.vision.taken_after) == (
        27, 72, 48, (8, 16, 24),
    )  # fmt: skip


WEIGHTS: dict[str, tuple[str, tuple[int, ...] | None]] = {
    "blocks.2.attn.qkv.bias": ("lack", None),
    "deepstack_merger_list.1.norm.weight": ("shape", (32,)),
    "patch_embed.proj.weight": ("shape", (32, 3, 1, 16, 16)),
    "deepstack_merger_list.2.norm.weight": ("does not use", (128,)),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_other_weights_of_the_tower_are_refused(
    name: str, vision_folder: Path, vision_reranker_folder: Path, other_folder: Path
) -> None:
    from safetensors.torch import load_file, save_file

    said, shape = WEIGHTS[name]

    def embedded(changed: Path) -> object:
        return Embedder(changed, device="cpu", dtype="float32").embed_documents(["x"])

    def scored(changed: Path) -> object:
        return Reranker(changed, device="cpu", dtype="float32").score("x", ["y"])

    for used, folder in ((embedded, vision_folder), (scored, vision_reranker_folder)):
        changed = other_folder / used.__name__
        shutil.copytree(folder, changed)
        tensors = load_file(changed / "model.safetensors")
        tensors.pop(f"model.visual.{name}", None)
        if shape is not None:
            tensors[f"model.visual.{name}"] = torch.zeros(shape)
        save_file(tensors, changed / "model.safetensors")
        with pytest.raises(ModelMismatchError, match=said):
            used(changed)


def test_patches_of_another_size_than_the_records_are_refused(vision_folder: Path, other_folder: Path) -> None:
    shutil.copytree(vision_folder, other_folder)
    config = json.loads((other_folder / "config.json").read_text("utf-8"))
    changed = edited(config, {"vision_config": {"patch_size": 14}})
    (other_folder / "config.json").write_text(json.dumps(changed), "utf-8")
    with pytest.raises(ModelMismatchError, match="14"):
        Embedder(other_folder, device="cpu", dtype="float32").embed_documents(["x"])


@pytest.mark.parametrize("prefix", ["language_model.", "model."], ids=["alone", "of the first releases"])
def test_tensors_under_other_names(prefix: str, vision_folder: Path, other_folder: Path, expected: np.ndarray) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(vision_folder, other_folder)
    others = {"model.language_model.": prefix, "model.visual.": "visual."}
    tensors = load_file(other_folder / "model.safetensors")
    for own, other in others.items():
        tensors = {name.replace(own, other): tensor for name, tensor in tensors.items()}
    save_file(tensors, other_folder / "model.safetensors")
    found = Embedder(other_folder, device="cpu", dtype="float32").embed_documents([given(DOCUMENTS[3])])
    assert cosines(found, expected[3:4]).min() > 0.99999
