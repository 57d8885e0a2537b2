"""Pictures: known by what a model will see of them, decoded with guards, brought to the size that a model takes."""
