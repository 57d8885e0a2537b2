"""A plugin that adds a model, which an existing runtime serves."""

from embrief import EmbeddingPrompts, EmbeddingSpec, Task, Template, hookimpl

NOTES = EmbeddingSpec(
    id="acme/notes",
    revision="v1",
    license="mit",
    architecture="hash",
    dim=64,
    max_tokens=512,
    context=512,
    padding_side="right",
    pooling="none",
    prompts=EmbeddingPrompts(
        tasks=(Task("retrieval", Template("ask: "), Template("note: ")),), instructed=Template("{instruction}: ")
    ),
    final_token=None,
    lexical=True,
    aliases=("notes",),
)


@hookimpl
def register_models(register):
    register(NOTES)
