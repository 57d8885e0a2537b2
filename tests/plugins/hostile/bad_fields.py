from dataclasses import replace

from acme_model import NOTES

from embrief import Backend, Integration, hookimpl


def backend(name, **fields):
    fields = {"supports": lambda spec: True, "resolve": lambda spec, device, dtype: ("cpu", "float32"), **fields}
    return Backend(name=name, load_embedder=id, needs_files=False, **fields)


@hookimpl
def register_backends(register):
    register(backend(None))
    register(backend(""))
    register(backend("bad-preference", preference="high"))
    register(backend("bad-supports", supports=True))
    register(backend("bad-requires", requires="torch"))


@hookimpl
def register_integrations(register):
    register(Integration(None, "stolen", "stolen", "", ()))


@hookimpl
def register_models(register):
    register(replace(NOTES, id=7, aliases=()))
    register(replace(NOTES, id="bad/aliases", aliases="bad"))
    register(replace(NOTES, id="bad/after-bad-fields", aliases=()))
