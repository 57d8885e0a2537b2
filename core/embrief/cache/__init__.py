"""Embeddings that were computed before: where they are kept, and under which keys."""
