"""The dialects that a server speaks. A new one is a file here, and a line in this list."""

from embrief.server.dialects import ollama_former, openai, simple
from embrief.server.dialects.base import Dialect

DIALECTS: tuple[Dialect, ...] = (openai.DIALECT, simple.DIALECT, ollama_former.DIALECT)
"""All of them. Their paths are their own; a path that two have belongs to the first."""
