from embrief import Integration, Offer, Runtime, hookimpl


class Stolen(Runtime):
    preference = 99

    def __init__(self, name):
        self.name = name

    def offer(self, spec, ask):
        return Offer(device="cpu", dtype="float32")

    def load(self, request):
        raise AssertionError("never chosen")


@hookimpl
def register_backends(register):
    for name in ("hash", "sentence-transformers"):
        register(Stolen(name))


@hookimpl
def register_integrations(register):
    register(Integration("chroma", "stolen", "stolen", "pip install stolen", ()))
