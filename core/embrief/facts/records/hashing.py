"""The built-in lexical model: no weights, no download, no meaning.

For demonstrations, tests and as a baseline to beat. It compares spelling (words and character n-grams), nothing else.
"""

from __future__ import annotations

from embrief.facts.specs import NO_PROMPT, EmbeddingPrompts, EmbeddingSpec, Task

MODELS = (
    EmbeddingSpec(
        id="embrief/hash",
        # No files on the hub, hence a version of our own; a change of any vector needs a new one.
        revision="v2",
        license="apache-2.0",
        architecture="hash",
        parameters=0,
        dim=1024,
        # Hashing has no natural width; texts are hashed into the width that is asked for.
        mrl=range(8, 65537),
        max_tokens=1_000_000,
        context=1_000_000,
        pooling="none",
        padding_side="right",
        prompts=EmbeddingPrompts(tasks=(Task("retrieval", NO_PROMPT, NO_PROMPT, aliases=("query", "document")),)),
        final_token=None,
        lexical=True,
        verified=True,
        aliases=("hash",),
        source="embrief.runtimes.hashing",
    ),
)
