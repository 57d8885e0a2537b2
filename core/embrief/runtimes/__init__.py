"""Runtimes: how rendered texts become vectors or scores. One file per runtime; heavy imports inside functions."""
