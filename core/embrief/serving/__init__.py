"""From a name to a model that answers calls: choosing the runtime, loading once, batches of all callers."""
