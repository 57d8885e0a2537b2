from embrief import hookimpl

ASKED = []


class Plugin:
    @hookimpl(tryfirst=True)
    def select_backend(self, spec, available):
        ASKED.append(spec.id)

    @property
    def zeal(self):
        """Be looked at by pluggy, if that is an old one, after the hook above was taken."""
        raise SystemExit("the plugin does not like to be looked at")


plugin = Plugin()
