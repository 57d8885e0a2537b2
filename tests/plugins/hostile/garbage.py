from dataclasses import replace

from acme_model import NOTES

from embrief import hookimpl


@hookimpl
def register_models(register):
    for garbage in ("Qwen/Qwen3-Embedding-8B", None, object(), NOTES.prompts):
        register(garbage)
    register(replace(NOTES, id="bad/no-revision", revision="", aliases=()))
    register(replace(NOTES, id="bad/after-garbage", aliases=()))


@hookimpl
def register_backends(register):
    register("hash")


@hookimpl
def register_integrations(register):
    register({"name": "chroma"})
