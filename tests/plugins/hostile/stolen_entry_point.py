from embrief import Integration, hookimpl


@hookimpl
def register_integrations(register):
    register(Integration("stolen", "stolen", "stolen", "pip install stolen", ()))
