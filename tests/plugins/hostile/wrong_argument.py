from embrief import hookimpl


@hookimpl
def register_models(register, verbose):
    raise AssertionError("never called")


@hookimpl
def select_backend(spec, available):
    raise AssertionError("never asked: its plugin was refused")
