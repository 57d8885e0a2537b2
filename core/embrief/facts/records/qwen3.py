"""Qwen3-Embedding and Qwen3-Reranker.

Source: model cards and https://github.com/QwenLM/Qwen3-Embedding (README, examples, evaluation).
"""

from __future__ import annotations

from embrief.facts.prompts import fill
from embrief.facts.specs import NO_PROMPT, Artifact, EmbeddingPrompts, EmbeddingSpec, RerankerSpec, Task, Template

INSTRUCTED = Template("Instruct: {instruction}\nQuery:")
RETRIEVAL = "Given a web search query, retrieve relevant passages that answer the query"
JUDGE = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".'
)


def _prompt(instruction: str) -> Template:
    return fill(INSTRUCTED, instruction=instruction)


# Besides retrieval, the instructions are those of the official evaluation and of the task list that it published. They
# are spelled as published, mistakes included, because the models were measured with these bytes.
EMBEDDING_PROMPTS = EmbeddingPrompts(
    tasks=(
        Task("retrieval", _prompt(RETRIEVAL), NO_PROMPT, aliases=("query", "document")),
        Task(
            "code_retrieval",
            _prompt("Given a question about coding, retrieval code or passage that can solve user's question"),
            NO_PROMPT,
        ),
        Task(
            "sentence_similarity",
            _prompt("Retrieve semantically similar text"),
            _prompt("Retrieve semantically similar text"),
            aliases=("STS", "PairClassification"),
        ),
        Task(
            "bitext_mining",
            _prompt("Retrieve parallel sentences"),
            _prompt("Retrieve parallel sentences"),
            aliases=("BitextMining",),
        ),
    ),
    instructed=INSTRUCTED,
    default_instruction=RETRIEVAL,
)

RERANK_TEMPLATE = Template(
    head=(
        f"<|im_start|>system\n{JUDGE}<|im_end|>\n<|im_start|>user\n"
        "<Instruct>: {instruction}\n<Query>: {query}\n<Document>: "
    ),
    tail="<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
)


def _gguf(size: str) -> tuple[Artifact, ...]:
    """The authors' own GGUF files. Their names are looked up in the repository; no commit of it is known here."""
    coarse = () if size == "0.6B" else ("q6_k", "q5_k_m", "q5_0", "q4_k_m")
    repository = f"Qwen/Qwen3-Embedding-{size}-GGUF"
    return tuple(Artifact("gguf", repository, "main", dtype=dtype) for dtype in ("float16", "q8_0", *coarse))


def _embedder(size: str, revision: str, dim: int, parameters: int, context: int) -> EmbeddingSpec:
    return EmbeddingSpec(
        id=f"Qwen/Qwen3-Embedding-{size}",
        revision=revision,
        license="apache-2.0",
        architecture="qwen3",
        parameters=parameters,
        hidden_size=dim,
        dim=dim,
        mrl=range(32, dim + 1),
        # The official examples and evaluation use 8192; the model holds 32k.
        max_tokens=8192,
        context=context,
        pooling="last",
        padding_side="left",
        prompts=EMBEDDING_PROMPTS,
        final_token="<|endoftext|>",
        # float16 gives NaN for some texts on the 8B (QwenLM/Qwen3-Embedding#164); the card uses it for the others.
        banned_dtypes=("float16",) if size == "8B" else (),
        defines_family=size == "0.6B",
        aliases=(f"Qwen3-Embedding-{size}",),
        served_names=(("ollama", f"qwen3-embedding:{size.lower()}"),),
        artifacts=_gguf(size),
        source=f"https://huggingface.co/Qwen/Qwen3-Embedding-{size}",
    )


def _reranker(size: str, revision: str, hidden_size: int, parameters: int) -> RerankerSpec:
    return RerankerSpec(
        id=f"Qwen/Qwen3-Reranker-{size}",
        revision=revision,
        license="apache-2.0",
        architecture="qwen3",
        parameters=parameters,
        hidden_size=hidden_size,
        max_tokens=8192,
        context=40960,
        padding_side="left",
        scoring="yes_no",
        template=RERANK_TEMPLATE,
        default_instruction=RETRIEVAL,
        defines_family=size == "0.6B",
        aliases=(f"Qwen3-Reranker-{size}",),
        source=f"https://huggingface.co/Qwen/Qwen3-Reranker-{size}",
    )


MODELS = (
    _embedder("0.6B", "b22da495047858cce924d27d76261e96be6febc0", 1024, 595_776_512, 32768),
    _embedder("4B", "636cd9bf47d976946cdbb2b0c3ca0cb2f8eea5ff", 2560, 4_021_774_336, 40960),
    _embedder("8B", "4e423935c619ae4df87b646a3ce949610c66241c", 4096, 7_567_295_488, 40960),
    _reranker("0.6B", "6e9e69830b95c52b5fd889b7690dda3329508de3", 1024, 595_776_512),
    _reranker("4B", "f16fc5d5d2b9b1d0db8280929242745d79794ef5", 2560, 4_021_784_576),
    _reranker("8B", "5fa94080caafeaa45a15d11f969d7978e087a3db", 4096, 8_188_548_096),
)
