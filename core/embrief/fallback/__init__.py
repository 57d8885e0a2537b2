"""Going on when a model cannot be had the usual way, without mixing vectors of two spaces.

| module | decides |
|---|---|
| `falls` | which errors another member may make up for |
| `breaker` | when a member that fails is left alone |
| `turns` | who is asked next, and what is told of it |
| `chain` | who answers a call; that a member's vectors are right before its first answer |
| `embedder`, `reranker` | what users hold |
| `events` | what is told of it |
"""

from embrief.fallback.embedder import FallbackEmbedder
from embrief.fallback.events import FallbackEvent
from embrief.fallback.reranker import FallbackReranker

__all__ = ["FallbackEmbedder", "FallbackEvent", "FallbackReranker"]
