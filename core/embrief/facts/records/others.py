"""Models of other families: proof that a record is all a new architecture needs."""

from __future__ import annotations

from embrief.facts.specs import NO_PROMPT, EmbeddingPrompts, EmbeddingSpec, RerankerSpec, Task, Template

NO_PROMPTS = EmbeddingPrompts(tasks=(Task("retrieval", NO_PROMPT, NO_PROMPT, aliases=("query", "document")),))
NO_TEMPLATE = Template("{query}")

MODELS = (
    EmbeddingSpec(
        id="BAAI/bge-m3",
        revision="5617a9f61b028005a4858fdac845db406aefb181",
        license="mit",
        architecture="xlm-roberta",
        parameters=567_754_752,
        hidden_size=1024,
        dim=1024,
        max_tokens=8192,
        context=8192,
        pooling="cls",
        padding_side="right",
        prompts=NO_PROMPTS,
        final_token="</s>",
        source="https://huggingface.co/BAAI/bge-m3 (the dense vectors only)",
    ),
    EmbeddingSpec(
        id="sentence-transformers/all-MiniLM-L6-v2",
        revision="c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
        license="apache-2.0",
        architecture="bert",
        parameters=22_713_216,
        hidden_size=384,
        dim=384,
        max_tokens=256,
        context=512,
        pooling="mean",
        padding_side="right",
        prompts=NO_PROMPTS,
        final_token="[SEP]",
        # tests/core/test_identify.py compares it with published vectors.
        verified=True,
        aliases=("all-MiniLM-L6-v2",),
        source="https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2",
    ),
    RerankerSpec(
        id="BAAI/bge-reranker-v2-m3",
        revision="953dc6f6f85a1b2dbfca4c34a2796e7dde08d41e",
        license="apache-2.0",
        architecture="xlm-roberta",
        parameters=567_755_777,
        hidden_size=1024,
        max_tokens=1024,
        context=8192,
        padding_side="right",
        scoring="classifier",
        template=NO_TEMPLATE,
        source="https://huggingface.co/BAAI/bge-reranker-v2-m3",
    ),
)
