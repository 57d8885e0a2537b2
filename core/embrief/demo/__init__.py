"""What `embrief demo` searches: the docstrings of the Python standard library, and their embedded index."""
