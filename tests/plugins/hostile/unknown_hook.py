from dataclasses import replace

from acme_model import NOTES

from embrief import hookimpl


@hookimpl
def register_modles(register):
    raise AssertionError("never called")


@hookimpl
def register_models(register):
    register(replace(NOTES, id="bad/unknown-hook", aliases=()))
