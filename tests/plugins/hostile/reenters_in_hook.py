import embrief


@embrief.hookimpl
def register_models(register):
    embrief.plugins()
