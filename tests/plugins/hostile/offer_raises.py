from embrief import Runtime, hookimpl


class Raises(Runtime):
    name = "bad-offer-raises"
    preference = 99

    def offer(self, spec, ask):
        return spec.no_such_field

    def load(self, request):
        raise AssertionError("never chosen")


@hookimpl
def register_backends(register):
    register(Raises())
