"""A plugin that adds a runtime, and the models that only this runtime serves."""

import numpy as np

from embrief import (
    Backend,
    EmbeddingPrompts,
    EmbeddingSpec,
    Encoded,
    RerankerSpec,
    Scored,
    Task,
    Template,
    hookimpl,
)

ARCHITECTURE = "acme-letters"
FACTS = {
    "revision": "v1",
    "license": "mit",
    "architecture": ARCHITECTURE,
    "max_tokens": 1000,
    "context": 1000,
    "padding_side": "right",
}
LETTERS = EmbeddingSpec(
    id="acme/letters",
    dim=26,
    pooling="none",
    prompts=EmbeddingPrompts(tasks=(Task("retrieval", Template(), Template()),)),
    final_token=None,
    lexical=True,
    **FACTS,
)
SHARED_LETTERS = RerankerSpec(id="acme/shared-letters", scoring="classifier", template=Template("{query}"), **FACTS)


def count_letters(text):
    return np.array([text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"], np.float32) + 0.01


def lengths(texts, options):
    counts = np.array([len(text) for text in texts], np.int64)
    return counts, counts > options.max_tokens


class LettersBackend:
    """An embedding model: how often each letter occurs."""

    def encode(self, texts, options):
        texts = [item.text for item in texts]
        counts, truncated = lengths(texts, options)
        vectors = np.stack([count_letters(text[: options.max_tokens]) for text in texts])
        return Encoded(vectors, counts, truncated)

    def close(self):
        pass


class SharedLettersBackend:
    """A reranker: how many letters query and document have in common."""

    def score(self, pairs, options):
        counts, truncated = lengths([pair.head + pair.body for pair in pairs], options)
        shared = [len(set(pair.head) & set(pair.body[: options.max_tokens])) for pair in pairs]
        return Scored(np.array(shared, np.float32) - 5, counts, truncated)

    def close(self):
        pass


BACKEND = Backend(
    name="acme-letters",
    supports=lambda spec: spec.architecture == ARCHITECTURE,
    resolve=lambda spec, device, dtype: ("cpu", "float32"),
    load_embedder=lambda request: LettersBackend(),
    load_reranker=lambda request: SharedLettersBackend(),
    needs_files=False,
)


@hookimpl
def register_backends(register):
    register(BACKEND)


@hookimpl
def register_models(register):
    register(LETTERS)
    register(SHARED_LETTERS)
