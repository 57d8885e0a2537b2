"""The engine against sentence-transformers on the same checkpoints: lengths, layouts, formats, texts, truncation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from embrief import Embedder

pytest.importorskip("sentence_transformers")

# Up to the sliding window (9 places to each side) and beyond, and around the blocks that rows and queries run in.
LENGTHS = [*range(1, 12), 16, 17, 18, 19, 31, 32, 33, 127, 128, 129, 130, 255, 256, 257, 511, 512, 513, 514, 700, 1000]


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    one, other = one.astype(np.float64), other.astype(np.float64)
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


def peer(folder: Path, dtype: str = "float32"):
    import torch
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": getattr(torch, dtype)})


def digits(count: int) -> str:
    """A text of so many tokens: the tokenizers of the test models keep digits apart."""
    return "".join(map(str, np.random.default_rng(count).integers(0, 10, count)))


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **changes}), "utf-8")


@pytest.fixture(scope="module", params=["qwen3", "gemma"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes 1024 tokens, of a folder that no other test has loaded."""
    made = tmp_path_factory.mktemp("engine") / request.param
    shutil.copytree(request.getfixturevalue(f"{request.param}_folder"), made)
    if request.param == "gemma":
        edit(made / "config.json", max_position_embeddings=1024)
        edit(made / "sentence_bert_config.json", max_seq_length=1024)
    return made


@pytest.fixture(scope="module")
def embedder(folder: Path) -> Embedder:
    found = Embedder(folder, dtype="float32", device="cpu")
    assert found.info()["backend"] == "engine"
    return found


def test_every_length_equals_sentence_transformers(folder: Path, embedder: Embedder) -> None:
    # Of prompt and special tokens: the shortest text is as long as they are.
    own = int(embedder.encode([""], role="document").token_counts[0])
    lengths = sorted({max(length, own) for length in LENGTHS})
    texts = [digits(length - own) for length in lengths]
    found = embedder.encode(texts, role="document")
    assert found.token_counts.tolist() == lengths
    oracle = peer(folder)
    assert cosines(found.vectors, oracle.encode_document(texts, batch_size=4)).min() >= 0.999999
    queries = [text for text in texts if len(text) < 600]
    assert cosines(embedder.embed_queries(queries), oracle.encode_query(queries)).min() >= 0.999999


def test_a_batch_of_many_equal_lengths_equals_single_texts(folder: Path, embedder: Embedder) -> None:
    texts = [*(digits(990)[number:] + digits(number) for number in range(9)), *map(str, range(10, 90)), digits(300)]
    found = Embedder(folder, dtype="float32", device="cpu", batch_tokens=20000).embed_documents(texts)
    for place in (0, 4, 8, 9, 50, 88, 89):
        np.testing.assert_allclose(found[place], embedder.embed_documents([texts[place]])[0], atol=1e-5)
    assert cosines(found, peer(folder).encode_document(texts)).min() >= 0.999999


def test_the_order_and_the_company_of_texts_change_nothing(embedder: Embedder, texts: list[str]) -> None:
    mixed = [*texts, *(digits(length) for length in LENGTHS if length < 900)]
    whole = embedder.embed_queries(mixed)
    order = np.random.default_rng(0).permutation(len(mixed))
    np.testing.assert_allclose(embedder.embed_queries([mixed[place] for place in order]), whole[order], atol=1e-5)
    for place in range(0, len(mixed), 3):
        np.testing.assert_allclose(embedder.embed_query(mixed[place]), whole[place], atol=1e-5)


def test_equal_texts_run_once_and_come_back_in_order(embedder: Embedder) -> None:
    found = embedder.embed_documents(["one", "two", "one", "", "two", "one"])
    np.testing.assert_array_equal(found[[0, 1, 0, 3, 1, 0]], found)
    np.testing.assert_allclose(found[[0, 1, 3]], embedder.embed_documents(["one", "two", ""]), atol=1e-6)


@pytest.mark.parametrize(
    "text",
    ["<|endoftext|>", "<|im_start|><|im_end|>", "a<|im_end|>b <think> c", "<bos>", "<eos><pad>", "x <eos> y", ""],
)
def test_special_tokens_written_in_a_text(folder: Path, embedder: Embedder, text: str) -> None:
    oracle = peer(folder)
    assert cosines(embedder.embed_documents([text]), oracle.encode_document([text])).min() >= 0.999999
    assert cosines(embedder.embed_queries([text]), oracle.encode_query([text])).min() >= 0.999999


@pytest.mark.parametrize("limit", [14, 31, 600])
def test_a_text_that_is_cut_has_the_ids_of_sentence_transformers(
    folder: Path, limit: int, texts: list[str], passed: list[int]
) -> None:
    oracle = peer(folder)
    oracle.max_seq_length = limit
    text = texts[-1] * 9
    found = Embedder(folder, dtype="float32", device="cpu", max_tokens=limit, truncate="silent").encode(
        [text], role="document"
    )
    assert found.truncated.all()
    prompt = oracle.prompts["document"]
    ids = oracle.preprocess([prompt + text])["input_ids"][0].tolist()
    assert len(ids) == limit
    assert passed == ids
    assert cosines(found.vectors, oracle.encode_document([text])).min() >= 0.999999


def test_truncation_and_padding_in_tokenizer_json_do_nothing(
    folder: Path, embedder: Embedder, other_folder: Path, texts: list[str]
) -> None:
    from tokenizers import Tokenizer

    shutil.copytree(folder, other_folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=64)
    tokenizer.save(str(other_folder / "tokenizer.json"))
    found = Embedder(other_folder, dtype="float32", device="cpu").embed_documents(texts)
    np.testing.assert_allclose(found, embedder.embed_documents(texts), atol=1e-6)


def save_again(folder: Path, to: Path, layout: str) -> Path:
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, to)
    file = to / "model.safetensors"
    tensors = load_file(file)
    if layout == "sharded":
        names = sorted(tensors)
        shards = [names[start::3] for start in range(3)]
        index = {name: f"model-{number}.safetensors" for number, shard in enumerate(shards) for name in shard}
        for number, shard in enumerate(shards):
            save_file({name: tensors[name] for name in shard}, to / f"model-{number}.safetensors", {"format": "pt"})
        file.unlink()
        (to / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}), "utf-8")
        return to
    if layout == "bfloat16":
        tensors = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    else:
        tensors = {f"model.{name}": tensor for name, tensor in tensors.items()}
    if layout == "untied":
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] * 2
    save_file(tensors, file, {"format": "pt"})
    return to


@pytest.mark.parametrize("layout", ["model.", "untied", "sharded"])
def test_layouts_of_the_weights(
    folder: Path, embedder: Embedder, other_folder: Path, layout: str, texts: list[str]
) -> None:
    found = Embedder(save_again(folder, other_folder, layout), dtype="float32", device="cpu").embed_documents(texts)
    np.testing.assert_allclose(found, embedder.embed_documents(texts), atol=1e-6)


def test_shards_that_transformers_wrote(folder: Path, embedder: Embedder, other_folder: Path, texts: list[str]) -> None:
    from transformers import AutoModel

    shutil.copytree(folder, other_folder)
    (other_folder / "model.safetensors").unlink()
    config = (folder / "config.json").read_bytes()
    AutoModel.from_pretrained(folder).save_pretrained(other_folder, max_shard_size="100KB")
    # Some versions halve Gemma's sliding window each time they save.
    (other_folder / "config.json").write_bytes(config)
    assert len(list(other_folder.glob("*.safetensors"))) > 2
    found = Embedder(other_folder, dtype="float32", device="cpu").embed_documents(texts)
    np.testing.assert_allclose(found, embedder.embed_documents(texts), atol=1e-6)


def test_bfloat16_is_no_further_off_than_sentence_transformers(folder: Path, other_folder: Path) -> None:
    save_again(folder, other_folder, "bfloat16")
    texts = [digits(length) for length in LENGTHS] + [digits(40 + number) for number in range(40)]
    exact = peer(other_folder).encode_document(texts)
    assert cosines(Embedder(other_folder, dtype="float32").embed_documents(texts), exact).min() >= 0.999999
    ours = Embedder(other_folder, dtype="bfloat16", device="cpu").embed_documents(texts)
    theirs = peer(other_folder, "bfloat16").encode_document(texts)
    assert (1 - cosines(ours, exact)).mean() <= 1.2 * (1 - cosines(theirs.astype(np.float32), exact)).mean()


@pytest.mark.parametrize("pooling", ["lasttoken", "mean_tokens"])
def test_either_pooling_with_either_architecture(folder: Path, other_folder: Path, pooling: str) -> None:
    """A causal model that takes means has to run the prompt with every text: its states count."""
    shutil.copytree(folder, other_folder)
    chosen = {f"pooling_mode_{name}": name == pooling for name in ("lasttoken", "mean_tokens")}
    edit(other_folder / "1_Pooling" / "config.json", **chosen)
    embedder = Embedder(other_folder, dtype="float32", device="cpu")
    assert embedder.info()["backend"] == "engine"
    texts = ["which planet is red?", "", "another query"]
    oracle = peer(other_folder)
    assert cosines(embedder.embed_queries(texts), oracle.encode_query(texts)).min() >= 0.999999
    assert cosines(embedder.embed_documents(texts), oracle.encode_document(texts)).min() >= 0.999999


@pytest.mark.parametrize("activation", ["Tanh", "Identity"])
def test_dense_layers_with_bias_and_activation(gemma_folder: Path, other_folder: Path, activation: str) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(gemma_folder, other_folder)
    dense = other_folder / "2_Dense"
    edit(dense / "config.json", bias=True, activation_function=f"torch.nn.modules.activation.{activation}")
    if activation == "Identity":
        edit(dense / "config.json", activation_function="torch.nn.modules.linear.Identity")
    tensors = load_file(dense / "model.safetensors")
    save_file({**tensors, "linear.bias": torch.linspace(-1, 1, 96)}, dense / "model.safetensors")
    texts = ["one", "two words", ""]
    found = Embedder(other_folder, dtype="float32", device="cpu").embed_documents(texts)
    assert cosines(found, peer(other_folder).encode_document(texts)).min() >= 0.999999


def test_older_names_of_the_same_settings(folder: Path, embedder: Embedder, other_folder: Path) -> None:
    """config.json as transformers 4 wrote it: bases of the rotary positions beside everything else, no layer types."""
    shutil.copytree(folder, other_folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    rope = config.pop("rope_parameters")
    if "gemma" in folder.name:
        config["rope_theta"] = rope["full_attention"]["rope_theta"]
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        assert config.pop("layer_types")[5] == "full_attention"
        config["sliding_window_pattern"] = 6
    else:
        config["rope_theta"] = rope["rope_theta"]
        config["rope_scaling"] = None
        config.pop("layer_types", None)
    (other_folder / "config.json").write_text(json.dumps(config), "utf-8")
    again = Embedder(other_folder, dtype="float32", device="cpu")
    assert again.info()["backend"] == "engine"
    found = again.embed_documents([digits(50), "short"])
    np.testing.assert_allclose(found, embedder.embed_documents([digits(50), "short"]), atol=1e-6)
