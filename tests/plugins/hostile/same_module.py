from embrief import hookimpl


@hookimpl
def register_models(register):
    pass
