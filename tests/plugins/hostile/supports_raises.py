from embrief import Backend, hookimpl


@hookimpl
def register_backends(register):
    register(
        Backend(
            name="bad-supports-raises",
            supports=lambda spec: spec.no_such_field,
            resolve=lambda spec, device, dtype: ("cpu", "float32"),
            load_embedder=id,
            load_reranker=id,
            preference=99,
            needs_files=False,
        )
    )
