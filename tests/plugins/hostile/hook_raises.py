from dataclasses import replace

from acme_model import NOTES

from embrief import hookimpl


@hookimpl
def register_models(register):
    register(replace(NOTES, id="bad/before-the-error", aliases=()))
    1 / 0


@hookimpl
def register_integrations(register):
    raise RuntimeError("nor this one")
