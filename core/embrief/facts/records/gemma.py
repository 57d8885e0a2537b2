"""EmbeddingGemma.

Source: model card and config_sentence_transformers.json of google/embeddinggemma-300m, arXiv 2509.20354.
"""

from __future__ import annotations

from embrief.facts.prompts import fill
from embrief.facts.specs import EmbeddingPrompts, EmbeddingSpec, Task, Template

DOCUMENT = Template("title: none | text: ")
TITLED = Template("title: {title} | text: ")
INSTRUCTED = Template("task: {instruction} | query: ")


def _search(name: str, description: str, *aliases: str) -> Task:
    """A task in which short queries look for documents."""
    return Task(name, fill(INSTRUCTED, instruction=description), DOCUMENT, TITLED, aliases)


def _symmetric(name: str, description: str, *aliases: str) -> Task:
    """A task in which both sides are texts of the same kind."""
    prompt = fill(INSTRUCTED, instruction=description)
    return Task(name, prompt, prompt, None, aliases)


EMBEDDING_PROMPTS = EmbeddingPrompts(
    tasks=(
        _search("retrieval", "search result", "query", "document", "Retrieval", "Retrieval-query",
                "Retrieval-document", "Reranking"),
        _search("question_answering", "question answering", "QuestionAnswering"),
        _search("fact_checking", "fact checking", "FactChecking"),
        _search("code_retrieval", "code retrieval", "CodeRetrieval", "InstructionRetrieval"),
        _symmetric("classification", "classification", "Classification", "MultilabelClassification"),
        _symmetric("clustering", "clustering", "Clustering"),
        _symmetric("sentence_similarity", "sentence similarity", "STS", "PairClassification"),
        _symmetric("summarization", "summarization", "Summarization"),
        _symmetric("bitext_mining", "search result", "BitextMining"),
    ),
    instructed=INSTRUCTED,
    default_instruction="search result",
)  # fmt: skip

MODELS = (
    EmbeddingSpec(
        id="google/embeddinggemma-300m",
        revision="64614b0b8b64f0c6c1e52b07e4e9a4e8fe4d2da2",
        license="gemma",
        gated=True,
        architecture="gemma3_text",
        parameters=307_581_696,
        hidden_size=768,
        dim=768,
        mrl=(128, 256, 512, 768),
        max_tokens=2048,
        context=2048,
        pooling="mean",
        padding_side="right",
        prompts=EMBEDDING_PROMPTS,
        final_token="<eos>",
        # Activations reach 8e5, far above float16's 65504.
        banned_dtypes=("float16",),
        defines_family=True,
        aliases=("embeddinggemma-300m",),
        served_names=(("ollama", "embeddinggemma"), ("ollama", "embeddinggemma:300m")),
        source="https://huggingface.co/google/embeddinggemma-300m",
    ),
)
