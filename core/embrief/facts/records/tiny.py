"""The tiny family: Qwen3's architecture, small enough to come with this package, for trying everything offline.

Trained by `examples/train_tiny`; the model cards beside the weights say on what, and what to expect.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from embrief.facts.records.qwen3 import EMBEDDING_PROMPTS, RERANK_TEMPLATE, RETRIEVAL
from embrief.facts.specs import EmbeddingPrompts, EmbeddingSpec, ImageSpec, RerankerSpec

_FOLDER = Path(__file__).parent
_SOURCE = "examples/train_tiny"

_EMBEDDING = EmbeddingSpec(
    id="embrief/tiny-embedding",
    # No files on the hub, hence a version of our own; a change of the weights needs a new one.
    revision="v2",
    license="apache-2.0",
    architecture="qwen3",
    parameters=7_144_960,
    hidden_size=256,
    dim=256,
    mrl=range(32, 257),
    max_tokens=512,
    context=1024,
    pooling="last",
    padding_side="left",
    # It knows English only.
    prompts=EmbeddingPrompts(
        tasks=tuple(task for task in EMBEDDING_PROMPTS.tasks if task.name != "bitext_mining"),
        instructed=EMBEDDING_PROMPTS.instructed,
        default_instruction=EMBEDDING_PROMPTS.default_instruction,
    ),
    final_token="<|endoftext|>",
    verified=True,
    aliases=("tiny-embedding",),
    source=_SOURCE,
    folder=_FOLDER / "tiny_embedding",
)

MODELS = (
    _EMBEDDING,
    # The same layers behind a tower for pictures.
    replace(
        _EMBEDDING,
        id="embrief/tiny-vl-embedding",
        revision="v2",
        architecture="qwen3_vl",
        parameters=8_999_776,
        modalities=("text", "image"),
        # Pictures were learnt alone and without a prompt, as squares of four tokens; longer ones get up to six.
        images=ImageSpec(
            mark="<|vision_start|><|image_pad|><|vision_end|>",
            pad="<|image_pad|>",
            min_pixels=4 * 32 * 32,
            max_pixels=6 * 32 * 32,
            prompt="none",
        ),
        special_tokens="text",
        aliases=("tiny-vl-embedding",),
        source="examples/train_tiny_images",
        folder=_FOLDER / "tiny_vl_embedding",
    ),
    RerankerSpec(
        id="embrief/tiny-reranker",
        revision="v2",
        license="apache-2.0",
        architecture="qwen3",
        parameters=4_294_784,
        hidden_size=256,
        max_tokens=512,
        context=1024,
        padding_side="left",
        scoring="yes_no",
        template=RERANK_TEMPLATE,
        default_instruction=RETRIEVAL,
        verified=True,
        aliases=("tiny-reranker",),
        source=_SOURCE,
        folder=_FOLDER / "tiny_reranker",
    ),
)
