"""Nomic Embed.

Source: mteb's loader (mteb/models/model_implementations/nomic_models.py), which follows the model cards and nomic-ai's
own evaluation; the page of nomic-embed-text-v2-moe in Ollama's library.
"""

from __future__ import annotations

from embrief.facts.specs import EmbeddingPrompts, EmbeddingSpec, Task, Template

_CLASSIFICATION = Template("classification: ")
_CLUSTERING = Template("clustering: ")
PROMPTS = EmbeddingPrompts(
    tasks=(
        Task("retrieval", Template("search_query: "), Template("search_document: "), aliases=("query", "document")),
        Task(
            "classification",
            _CLASSIFICATION,
            _CLASSIFICATION,
            aliases=("Classification", "MultilabelClassification", "Reranking"),
        ),
        Task("clustering", _CLUSTERING, _CLUSTERING, aliases=("Clustering",)),
        Task("sentence_similarity", _CLASSIFICATION, _CLASSIFICATION, aliases=("STS", "PairClassification")),
        Task("summarization", _CLASSIFICATION, _CLASSIFICATION, aliases=("Summarization",)),
    )
)

MODELS = (
    EmbeddingSpec(
        id="nomic-ai/nomic-embed-text-v1.5",
        revision="b0753ae76394dd36bcfb912a46018088bca48be0",
        license="apache-2.0",
        architecture="nomic_bert",
        parameters=136_731_648,
        hidden_size=768,
        dim=768,
        # Its card takes a layer norm before vectors are cut, which a prefix of the vector cannot replace: no widths.
        # It was trained with 2048 positions; more need rotary positions to be scaled, as the card says.
        max_tokens=2048,
        context=8192,
        pooling="mean",
        padding_side="right",
        prompts=PROMPTS,
        final_token="[SEP]",
        aliases=("nomic-embed-text-v1.5",),
        served_names=(
            ("ollama", "nomic-embed-text"),
            ("ollama", "nomic-embed-text:v1.5"),
            ("tei", "nomic-ai/nomic-embed-text-v1.5"),
        ),
        needs_server="has files with names and code of its own, which do not run with transformers 5",
        source="https://huggingface.co/nomic-ai/nomic-embed-text-v1.5 and mteb 2.26.24; that `nomic-embed-text` "
        "without a tag is v1.5 is not verified here",
    ),
    EmbeddingSpec(
        id="nomic-ai/nomic-embed-text-v2-moe",
        revision="1066b6599d099fbb93dfcb64f9c37a7c9e503e85",
        license="apache-2.0",
        architecture="nomic_bert",
        parameters=475_292_928,
        hidden_size=768,
        dim=768,
        mrl=(256, 768),
        max_tokens=512,
        context=512,
        pooling="mean",
        padding_side="right",
        prompts=PROMPTS,
        final_token="</s>",
        aliases=("nomic-embed-text-v2-moe",),
        served_names=(("ollama", "nomic-embed-text-v2-moe"), ("tei", "nomic-ai/nomic-embed-text-v2-moe")),
        needs_server="has code of its own, and transformers 5 has no mixture of experts for its architecture",
        source="https://huggingface.co/nomic-ai/nomic-embed-text-v2-moe and mteb 2.26.24",
    ),
)
