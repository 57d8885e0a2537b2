"""The dialects that a server speaks. A new one is a file here, and a line in this list."""

from embrief.server.dialects import cohere, ollama, ollama_former, openai, ranking, simple, tei
from embrief.server.dialects.base import Dialect

DIALECTS: tuple[Dialect, ...] = (
    openai.DIALECT,
    simple.DIALECT,
    ollama_former.DIALECT,
    ollama.DIALECT,
    tei.DIALECT,
    ranking.DIALECT,
    cohere.DIALECT,
)
"""All of them. Their paths are their own; a path that two have belongs to the first."""
