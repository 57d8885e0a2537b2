from embrief import Integration, hookimpl


@hookimpl
def register_integrations(register):
    register(Integration(__name__, "twin", "twin", "pip install twin", ()))
