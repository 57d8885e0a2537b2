"""What is known beforehand: records of models, the bytes of prompts, vector spaces, arithmetic on vectors.

Nothing here reads a file or runs a model.
"""
