"""A plugin that adds a runtime, and the models that only this runtime serves."""

import numpy as np

from embrief import (
    EmbeddingPrompts,
    EmbeddingSpec,
    Offer,
    Output,
    Refusal,
    RerankerSpec,
    Runtime,
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

    def run(self, inputs, options):
        texts = [item.text for item in inputs]
        counts, truncated = lengths(texts, options)
        vectors = np.stack([count_letters(text[: options.max_tokens]) for text in texts])
        return Output.dense(vectors, counts, truncated)

    def close(self):
        pass


class SharedLettersBackend:
    """A reranker: how many letters query and document have in common."""

    def run(self, pairs, options):
        counts, truncated = lengths([pair.head + pair.body for pair in pairs], options)
        shared = [len(set(pair.head) & set(pair.body[: options.max_tokens])) for pair in pairs]
        return Output.scores(np.array(shared, np.float32) - 5, counts, truncated)

    def close(self):
        pass


class Letters(Runtime):
    name = "acme-letters"

    def offer(self, spec, ask):
        if spec.architecture != ARCHITECTURE:
            return Refusal("counts letters")
        return Offer(device="cpu", dtype="float32")

    def load(self, request):
        return LettersBackend() if isinstance(request.spec, EmbeddingSpec) else SharedLettersBackend()


@hookimpl
def register_backends(register):
    register(Letters())


@hookimpl
def register_models(register):
    register(LETTERS)
    register(SHARED_LETTERS)
