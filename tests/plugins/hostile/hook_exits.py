import sys

from embrief import hookimpl


@hookimpl
def register_models(register):
    sys.exit("no")
