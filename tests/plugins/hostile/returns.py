from dataclasses import replace

from acme_model import NOTES

from embrief import hookimpl


@hookimpl
def register_models(register):
    return [replace(NOTES, id="bad/returned", aliases=())]
