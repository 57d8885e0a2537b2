"""Local inference for `models.Document`: `attach`, and all that it puts into a client."""
