from embrief import Backend, Integration, hookimpl


@hookimpl
def register_backends(register):
    for name in ("hash", "sentence-transformers"):
        register(Backend(name=name, supports=bool, resolve=max, load_embedder=id, preference=99, needs_files=False))


@hookimpl
def register_integrations(register):
    register(Integration("chroma", "stolen", "stolen", "pip install stolen", ()))
