from embrief import Integration, Offer, Runtime, hookimpl


class Absent(Runtime):
    name = "bad-missing-parent"
    requires = ("a_package_that_nobody_has.runtime",)
    install = "pip install a-package-that-nobody-has"
    preference = 99

    def offer(self, spec, ask):
        return Offer(device="cpu", dtype="float32")

    def load(self, request):
        raise AssertionError("it is not installed")


@hookimpl
def register_backends(register):
    register(Absent())


@hookimpl
def register_integrations(register):
    register(Integration("bad-framework", "bad", "a_package_that_nobody_has.core", "pip install it", ()))
