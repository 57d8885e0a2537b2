"""A plugin that adds a second runtime for models of another one, and chooses it for one of them."""

from embrief import Backend, hookimpl
from embrief.runtimes.hashing import HashBackend

ASKED = []


@hookimpl
def register_backends(register):
    register(
        Backend(
            name="acme-hash",
            supports=lambda spec: spec.architecture == "hash",
            resolve=lambda spec, device, dtype: ("cpu", "float32"),
            load_embedder=lambda request: HashBackend(request.spec),
            needs_files=False,
            preference=-1,
        )
    )


@hookimpl
def select_backend(spec, available):
    ASKED.append((spec.id, available))
    return "acme-hash" if spec.id == "acme/notes" else None
