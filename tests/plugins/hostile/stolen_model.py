from dataclasses import replace

from acme_model import NOTES

from embrief import hookimpl


@hookimpl
def register_models(register):
    register(replace(NOTES, id="Qwen/Qwen3-Embedding-0.6B", aliases=()))
    register(replace(NOTES, id="qwen/QWEN3-embedding-0.6b", aliases=()))
    register(replace(NOTES, id="hash", aliases=()))
    register(replace(NOTES, id="bad/alias", aliases=("bad/other-alias", "Hash")))
    register(replace(NOTES, id="bad/free-name", aliases=(), defines_family=True, architecture="qwen3"))
