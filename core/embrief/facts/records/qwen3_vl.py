"""Qwen3-VL-Embedding and Qwen3-VL-Reranker: texts and pictures in one space.

Source: https://github.com/QwenLM/Qwen3-VL-Embedding (README and the reference code), the model cards, arXiv 2601.04720.
None of it was run with the published weights here. The shape of the 2B models, and that the tokenizers of all but the
8B embedder are laid out alike, are as public code has them; loading checks both.
"""

from __future__ import annotations

from embrief.facts.prompts import fill
from embrief.facts.records.qwen3 import JUDGE
from embrief.facts.specs import EmbeddingPrompts, EmbeddingSpec, ImageSpec, RerankerSpec, Task, Template

REFERENCE_MAX_PIXELS = 1800 * 32 * 32
"""The limit of the authors' own code, by which their published values were made; the files that they publish, which all
other runtimes read, have the one of `IMAGES`."""
IMAGES = ImageSpec(
    mark="<|vision_start|><|image_pad|><|vision_end|>",
    pad="<|image_pad|>",
    min_pixels=4 * 32 * 32,
    max_pixels=1280 * 32 * 32,
    authors_max_pixels=REFERENCE_MAX_PIXELS,
)
INSTRUCTION = "Represent the user's input."
INSTRUCTED = Template(
    head="<|im_start|>system\n{instruction}<|im_end|>\n<|im_start|>user\n",
    tail="<|im_end|>\n<|im_start|>assistant\n",
)
_PROMPT = fill(INSTRUCTED, instruction=INSTRUCTION)
EMBEDDING_PROMPTS = EmbeddingPrompts(
    tasks=(Task("retrieval", _PROMPT, _PROMPT, aliases=("query", "document")),),
    instructed=INSTRUCTED,
    default_instruction=INSTRUCTION,
    instruction_is_sentence=True,
)
RERANK_INSTRUCTION = "Given a search query, retrieve relevant candidates that answer the query."
# Without a line break before the query and without blanks behind the colons, and without an empty thought at the end:
# otherwise than in the template of the text rerankers.
RERANK_TEMPLATE = Template(
    head=(
        f"<|im_start|>system\n{JUDGE}<|im_end|>\n<|im_start|>user\n"
        "<Instruct>: {instruction}<Query>:{query}\n<Document>:"
    ),
    tail="<|im_end|>\n<|im_start|>assistant\n",
)


def _embedder(size: str, revision: str, dim: int, parameters: int) -> EmbeddingSpec:
    return EmbeddingSpec(
        id=f"Qwen/Qwen3-VL-Embedding-{size}",
        revision=revision,
        license="apache-2.0",
        architecture="qwen3_vl",
        parameters=parameters,
        hidden_size=dim,
        dim=dim,
        mrl=range(64, dim + 1),
        max_tokens=8192,
        # What the authors state; config.json has 262,144.
        context=32768,
        pooling="last",
        padding_side="right",
        prompts=EMBEDDING_PROMPTS,
        # The tokenizer appends it behind the tail; the paper pools it too.
        final_token="<|endoftext|>",
        modalities=("text", "image"),
        images=IMAGES,
        special_tokens="text",
        defines_family=size == "2B",
        # The second is how tables of models for benchmarks call it.
        aliases=(f"Qwen3-VL-Embedding-{size}", f"Qwen3-VL-Embed-{size}"),
        source=f"https://huggingface.co/Qwen/Qwen3-VL-Embedding-{size}",
    )


def _reranker(size: str, hidden_size: int, parameters: int) -> RerankerSpec:
    return RerankerSpec(
        id=f"Qwen/Qwen3-VL-Reranker-{size}",
        # No commit is known here; what is fetched first stays.
        revision="main",
        license="apache-2.0",
        architecture="qwen3_vl",
        parameters=parameters,
        hidden_size=hidden_size,
        max_tokens=10240,
        context=32768,
        padding_side="left",
        scoring="yes_no",
        template=RERANK_TEMPLATE,
        default_instruction=RERANK_INSTRUCTION,
        modalities=("text", "image"),
        images=IMAGES,
        special_tokens="text",
        defines_family=size == "2B",
        aliases=(f"Qwen3-VL-Reranker-{size}",),
        source=f"https://huggingface.co/Qwen/Qwen3-VL-Reranker-{size}",
    )


MODELS = (
    _embedder("2B", "9f2f7e710d6d81056aa5c0a4f04764fec6bb7bda", 2048, 2_127_532_032),
    _embedder("8B", "2c4565515e0f265c6511776e7193b22c0968ddc7", 4096, 8_144_793_840),
    _reranker("2B", 2048, 2_127_532_032),
    _reranker("8B", 4096, 8_144_793_840),
)
