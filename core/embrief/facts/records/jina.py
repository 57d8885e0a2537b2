"""Models of Jina AI; their code does not run with transformers 5, so that servers run them.

Source: mteb (jina_models.py, rerankers_custom.py), fastembed's table of models, https://jina.ai/models.
"""

from __future__ import annotations

from embrief.facts.records.others import NO_PROMPTS, NO_TEMPLATE
from embrief.facts.specs import EmbeddingPrompts, EmbeddingSpec, RerankerSpec, Task, Template

_OWN_CODE = "has code of its own, which does not run with transformers 5"

MODELS = (
    EmbeddingSpec(
        id="jinaai/jina-embeddings-v2-base-es",
        # No commit of its files is known here: what is described is what Ollama serves under this name.
        revision="ollama:jina/jina-embeddings-v2-base-es",
        license="apache-2.0",
        architecture=None,
        hidden_size=768,
        dim=768,
        max_tokens=8192,
        context=8192,
        pooling="mean",
        padding_side=None,
        prompts=NO_PROMPTS,
        final_token=None,
        aliases=("jina-embeddings-v2-base-es",),
        served_names=(("ollama", "jina/jina-embeddings-v2-base-es"),),
        needs_server=_OWN_CODE,
        source="fastembed 0.9.1 (Spanish and English, 8192 tokens, mean pooling, no prefixes); the commit is not known",
    ),
    EmbeddingSpec(
        id="jinaai/jina-embeddings-v4",
        revision="4a58ca57710c49f51896e4bc820e202fbf64904b",
        # As mteb and the GGUF repositories say; jina.ai says Qwen Research License, which is not commercial either.
        license="cc-by-nc-4.0",
        architecture=None,
        parameters=3_934_695_552,
        hidden_size=2048,
        dim=2048,
        mrl=(128, 256, 512, 1024, 2048),
        max_tokens=32768,
        context=32768,
        pooling="mean",
        padding_side=None,
        # The other tasks (text-matching, code) are other adapters, and so other weights: which one runs is for the
        # server to say, and this record is that of retrieval.
        prompts=EmbeddingPrompts(
            tasks=(Task("retrieval", Template("Query: "), Template("Passage: "), aliases=("query", "document")),)
        ),
        final_token=None,
        aliases=("jina-embeddings-v4",),
        served_names=(("openai", "jinaai/jina-embeddings-v4"),),
        needs_server=_OWN_CODE,
        source="https://jina.ai/models/jina-embeddings-v4, its configuration class and mteb 2.26.24; the server has to "
        "run the retrieval adapter; with which special tokens a text ends is not verified here",
    ),
    RerankerSpec(
        id="jinaai/jina-reranker-v2-base-multilingual",
        revision="126747772a932960028d9f4dc93bd5d9c4869be4",
        license="cc-by-nc-4.0",
        architecture=None,
        max_tokens=1024,
        context=1024,
        padding_side=None,
        scoring="classifier",
        template=NO_TEMPLATE,
        aliases=("jina-reranker-v2-base-multilingual",),
        # The second is the name on Jina's own servers.
        served_names=(
            ("rerank-http", "jinaai/jina-reranker-v2-base-multilingual"),
            ("rerank-http", "jina-reranker-v2-base-multilingual"),
        ),
        needs_server=_OWN_CODE,
        source="https://huggingface.co/jinaai/jina-reranker-v2-base-multilingual, mteb 2.26.24 (commit), fastembed "
        "0.9.1 (licence, 1024 tokens); the licence is not verified on the hub",
    ),
)
