"""EmbeddingGemma and EmbeddingGemma 2: two models with two vector spaces, though most of their prompts are the same.

Source of the first: model card and config_sentence_transformers.json of google/embeddinggemma-300m, arXiv 2509.20354.

Source of the second: transformers' modeling and configuration of release 5.23 for what it computes; copies of its model
card, of config.json and of config_sentence_transformers.json that others published, and mteb's table of models for the
rest. Not verified, since nobody here had its files: the tokenizer (that texts stand between `<bos>` and `<eos>` is said
by two reimplementations of others), the exact keys of the prompts in its files, and what it was trained with beyond
the 8,192 tokens of its card, though its configuration has 262,144 positions.

Pictures are left to those who say in which form: mteb's code, which follows the authors' recipe, gives inputs with
pictures a prompt in some tasks and none in others, and nobody says which is meant elsewhere. That a picture stands
between two marks, and with them between `<bos>` and `<eos>`, is how a reimplementation of others has it.
"""

from __future__ import annotations

from embrief.facts.prompts import fill
from embrief.facts.specs import Artifact, EmbeddingPrompts, EmbeddingSpec, ImageSpec, Task, Template

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

EMBEDDING_2_PROMPTS = EmbeddingPrompts(
    tasks=(
        _search("retrieval", "search result", "query", "document", "SearchQuery", "Document", "Retrieval",
                "Retrieval-query", "Retrieval-document", "Reranking"),
        _search("question_answering", "question answering", "QuestionAnswering"),
        _search("fact_checking", "fact checking", "FactChecking"),
        _search("code_retrieval", "code retrieval", "CodeRetrieval", "InstructionRetrieval"),
        _symmetric("classification", "classification", "Classification", "MultilabelClassification"),
        _symmetric("clustering", "clustering", "Clustering"),
        _symmetric("sentence_similarity", "sentence similarity", "SentenceSimilarity", "STS", "PairClassification"),
        # The first EmbeddingGemma has a prompt of its own for this.
        _symmetric("summarization", "sentence similarity", "Summarization"),
        _symmetric("bitext_mining", "search result", "BitextMining"),
    ),
    instructed=INSTRUCTED,
    default_instruction="search result",
)  # fmt: skip

_UNIT = 3 * 16
EMBEDDING_2_IMAGES = ImageSpec(
    mark="<|image><|image|><image|>",
    pad="<|image|>",
    patch=16,
    merge=3,
    min_pixels=_UNIT**2,
    max_pixels=280 * _UNIT**2,
    # The tower itself centres its values.
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    budgets=(70, 140, 280, 560, 1120),
)
"""How EmbeddingGemma 2 takes pictures: transformers' processor of Gemma 4, and the names of tokens that its processor
takes from the tokenizer, as public code has them."""

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
        # By those who make llama.cpp, and not by the model's authors, who publish none. Whether the two Dense layers
        # are in the file is seen when it is loaded.
        artifacts=(Artifact("gguf", "ggml-org/embeddinggemma-300M-GGUF", "main", dtype="q8_0"),),
        source="https://huggingface.co/google/embeddinggemma-300m",
    ),
    EmbeddingSpec(
        id="google/embeddinggemma-2",
        revision="914f7f89142e33e77833254d9c9b90c3cef7303b",
        # By its card; mteb's table says `gemma`.
        license="apache-2.0",
        architecture="embedding_gemma2",
        # Of the text model: the towers for pictures and sound are not loaded.
        parameters=271_002_624,
        hidden_size=512,
        # Of the projection inside the model.
        dim=768,
        mrl=(128, 256, 512, 768),
        max_tokens=8192,
        context=8192,
        pooling="mean",
        padding_side="right",
        prompts=EMBEDDING_2_PROMPTS,
        final_token="<eos>",
        # By its card: activations overflow it, and vectors are NaN.
        banned_dtypes=("float16",),
        images_unverified=EMBEDDING_2_IMAGES,
        defines_family=True,
        aliases=("embeddinggemma-2",),
        served_names=(("ollama", "embeddinggemma-2"),),
        source=(
            "https://huggingface.co/google/embeddinggemma-2 and transformers 5.23; not verified: its tokenizer, the "
            "keys of its prompts, limits beyond the card's"
        ),
    ),
)
