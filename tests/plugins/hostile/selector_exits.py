import sys

from embrief import hookimpl


@hookimpl(tryfirst=True)
def select_backend(spec, available):
    sys.exit("I will not decide")
