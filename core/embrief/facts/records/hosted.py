"""Models that nobody but their provider runs. They have no files, no commit, and no prompts that are known.

A provider's models have no version but their name, which is what names their weights here: the provider may change what
stands behind it.
"""

from __future__ import annotations

from embrief.facts.records.others import NO_PROMPTS, NO_TEMPLATE
from embrief.facts.specs import EmbeddingSpec, RerankerSpec


def _openai(name: str, dim: int, *aliases: str, cut: bool) -> EmbeddingSpec:
    return EmbeddingSpec(
        id=f"openai/{name}",
        revision=name,
        license="proprietary",
        architecture=None,
        dim=dim,
        # `dimensions` takes any width; which is the smallest is not said.
        mrl=range(1, dim + 1) if cut else (),
        max_tokens=8191,
        context=8192,
        pooling=None,
        padding_side=None,
        prompts=NO_PROMPTS,
        final_token=None,
        aliases=(name, *aliases),
        served_names=(("openai", name),),
        hosted="OpenAI",
        source="https://platform.openai.com/docs/guides/embeddings and mteb 2.26.24 (openai_models.py)",
    )


MODELS = (
    _openai("text-embedding-3-small", 1536, "openai-3-small", cut=True),
    _openai("text-embedding-3-large", 3072, "openai-3-large", cut=True),
    _openai("text-embedding-ada-002", 1536, cut=False),
    EmbeddingSpec(
        id="mistralai/mistral-embed",
        revision="mistral-embed",
        license="proprietary",
        architecture=None,
        dim=1024,
        max_tokens=8192,
        context=8192,
        pooling=None,
        padding_side=None,
        prompts=NO_PROMPTS,
        final_token=None,
        aliases=("mistral-embed",),
        served_names=(("openai", "mistral-embed"),),
        hosted="Mistral",
        source="https://docs.mistral.ai/capabilities/embeddings/text_embeddings; 8192 tokens are not verified here",
    ),
    RerankerSpec(
        id="cohere/rerank-v3.5",
        revision="rerank-v3.5",
        license="proprietary",
        architecture=None,
        max_tokens=4096,
        context=4096,
        padding_side=None,
        # What is inside is not known; as with a classifier, there is no template and no instruction.
        scoring="classifier",
        template=NO_TEMPLATE,
        aliases=("rerank-v3.5",),
        served_names=(("rerank-http", "rerank-v3.5"),),
        hosted="Cohere",
        source="https://docs.cohere.com/changelog/rerank-v3.5 (4096 tokens, queries up to 2048)",
    ),
)
