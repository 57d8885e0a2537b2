"""A plugin that adds a second runtime for models of another one, and chooses it for one of them."""

from embrief import Offer, Refusal, Runtime, hookimpl
from embrief.runtimes.hashing import HashBackend

ASKED = []


class SecondHash(Runtime):
    name = "acme-hash"
    preference = -1

    def offer(self, spec, ask):
        return Offer(device="cpu", dtype="float32") if spec.architecture == "hash" else Refusal("hashes")

    def load(self, request):
        return HashBackend(request.spec)


@hookimpl
def register_backends(register):
    register(SecondHash())


@hookimpl
def select_backend(spec, available):
    ASKED.append((spec.id, available))
    return "acme-hash" if spec.id == "acme/notes" else None
