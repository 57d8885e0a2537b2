from dataclasses import replace

from acme_model import NOTES

from embrief import Integration, Offer, Runtime, hookimpl


class Odd(Runtime):
    def offer(self, spec, ask):
        return Offer(device="cpu", dtype="float32")

    def load(self, request):
        raise AssertionError("never registered")


def backend(name, **fields):
    found = Odd()
    found.name = name
    for field, value in fields.items():
        setattr(found, field, value)
    return found


@hookimpl
def register_backends(register):
    register(backend(None))
    register(backend(""))
    register(backend("bad-preference", preference="high"))
    register(backend("bad-options", Options=dict))
    register(Odd)
    register(backend("bad-requires", requires="torch"))


@hookimpl
def register_integrations(register):
    register(Integration(None, "stolen", "stolen", "", ()))


@hookimpl
def register_models(register):
    register(replace(NOTES, id=7, aliases=()))
    register(replace(NOTES, id="bad/aliases", aliases="bad"))
    register(replace(NOTES, id="bad/after-bad-fields", aliases=()))
