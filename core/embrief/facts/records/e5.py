"""The E5 models that follow instructions.

Source: their model cards, and mteb's loaders (mteb/models/model_implementations/e5_instruct.py).
"""

from __future__ import annotations

from embrief.facts.prompts import fill
from embrief.facts.specs import NO_PROMPT, EmbeddingPrompts, EmbeddingSpec, Task, Template

# Unlike Qwen3-Embedding's, with a blank at the end.
INSTRUCTED = Template("Instruct: {instruction}\nQuery: ")
RETRIEVAL = "Given a web search query, retrieve relevant passages that answer the query"
PROMPTS = EmbeddingPrompts(
    tasks=(Task("retrieval", fill(INSTRUCTED, instruction=RETRIEVAL), NO_PROMPT, aliases=("query", "document")),),
    instructed=INSTRUCTED,
    default_instruction=RETRIEVAL,
)

MODELS = (
    EmbeddingSpec(
        id="intfloat/multilingual-e5-large-instruct",
        revision="baa7be480a7de1539afce709c8f13f833a510e0a",
        license="mit",
        architecture="xlm-roberta",
        parameters=559_890_432,
        hidden_size=1024,
        dim=1024,
        # mteb has 514, which is the number of positions: two of them are never used.
        max_tokens=512,
        context=512,
        pooling="mean",
        padding_side="right",
        prompts=PROMPTS,
        final_token="</s>",
        aliases=("multilingual-e5-large-instruct",),
        source="https://huggingface.co/intfloat/multilingual-e5-large-instruct and mteb 2.26.24",
    ),
    EmbeddingSpec(
        id="intfloat/e5-mistral-7b-instruct",
        revision="07163b72af1488142a360786df853f237b1a3ca1",
        license="mit",
        architecture="mistral",
        parameters=7_110_660_096,
        hidden_size=4096,
        dim=4096,
        # What the card recommends; the architecture holds 32768.
        max_tokens=4096,
        context=32768,
        pooling="last",
        padding_side="left",
        prompts=PROMPTS,
        final_token="</s>",
        # tokenizer_config.json has add_eos_token, the post-processor of tokenizer.json appends nothing, and release 5
        # of transformers follows the latter: the last word would be pooled (embeddings-benchmark/mteb#5237).
        final_token_left_out=True,
        aliases=("e5-mistral-7b-instruct", "e5-mistral-embed"),
        source="https://huggingface.co/intfloat/e5-mistral-7b-instruct and mteb 2.26.24",
    ),
)
