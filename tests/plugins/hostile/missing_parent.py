from embrief import Backend, Integration, hookimpl


@hookimpl
def register_backends(register):
    register(
        Backend(
            name="bad-missing-parent",
            requires=("a_package_that_nobody_has.runtime",),
            install="pip install a-package-that-nobody-has",
            supports=lambda spec: True,
            resolve=lambda spec, device, dtype: ("cpu", "float32"),
            load_embedder=id,
            load_reranker=id,
            preference=99,
            needs_files=False,
        )
    )


@hookimpl
def register_integrations(register):
    register(Integration("bad-framework", "bad", "a_package_that_nobody_has.core", "pip install it", ()))
