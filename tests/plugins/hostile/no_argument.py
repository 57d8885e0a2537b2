from embrief import hookimpl


@hookimpl
def register_models():
    raise AssertionError("never called")
