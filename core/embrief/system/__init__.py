"""The process, the machine and the environment that this runs in. Knows nothing of models."""
