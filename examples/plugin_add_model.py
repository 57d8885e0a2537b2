# pip install -e .
"""Adds a model with prompts of its own. As a plugin, the two marked parts are the whole file: see docs/plugins.md."""

import embrief
from embrief import EmbeddingPrompts, EmbeddingSpec, Task, Template, hookimpl

# --- the plugin's file: a record ...
NOTES = EmbeddingSpec(
    id="acme/notes",  # your model on the hub, and the full commit id as its revision
    revision="v1",
    license="apache-2.0",
    architecture="hash",  # a real model: model_type in its config.json, such as "qwen3"
    dim=256,
    max_tokens=512,
    context=512,
    padding_side="right",
    pooling="none",  # a real model: "last", "mean" or "cls"
    prompts=EmbeddingPrompts(tasks=(Task("retrieval", Template("question: "), Template("note: ")),)),
    final_token=None,
)


# --- ... and a hook
@hookimpl
def register_models(register):
    register(NOTES)


if __name__ == "__main__":
    register_models(embrief.plugins().catalog.add_model)  # an installed plugin is found without this line
    embedder = embrief.Embedder("acme/notes")
    notes = embedder.embed_documents(["The red bin is emptied on Monday.", "Call Anna about the roof."])
    print(embedder.render("who looks after the roof?", role="query"))
    print(embedder.space.model, notes.shape, (notes @ embedder.embed_query("who looks after the roof?")).argmax())

# Output:
# question: who looks after the roof?
# acme/notes (2, 256) 1
