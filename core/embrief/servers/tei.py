"""Hugging Face's text-embeddings-inference: `/info`, `/embed`, `/rerank`.

Source: its OpenAPI description and source at 1.9.3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from embrief.errors import BackendError, EmbriefError, ModelMismatchError, ServerModelWarning, warn
from embrief.facts.specs import EmbeddingSpec
from embrief.files.weights import COMMIT
from embrief.servers import own
from embrief.servers.answers import scores, whole
from embrief.servers.model import ServerEmbedder, ServerModel, ServerReranker, is_on_hub

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from embrief.facts.prompts import Source
    from embrief.runtimes.base import RunOptions
    from embrief.servers.counting import Fitted
    from embrief.servers.http import Words

_LONG = re.compile(r"must have less than (\d+) tokens\. Given: (\d+)")
_POOLING = {"cls": "cls", "mean": "mean", "lasttoken": "last"}


async def learn(model: ServerModel, *, reranks: bool) -> str | None:
    """Read `/info`: what is served, and its limits.

    Returns:
        What requests have to name: a server of embrief's has several models, text-embeddings-inference one, and `None`.

    Raises:
        ModelMismatchError: It serves another model, another kind, another pooling, or a number format that gives wrong
            results with this model.
    """
    info, spec, where = await model.http.get("/info"), model.spec, model.http.where
    if not isinstance(info, dict) or "model_id" not in info:
        raise BackendError(f"{where}/info does not answer as text-embeddings-inference does; is it another server?")
    name, own_facts = None, info.get(own.OWNER)
    if isinstance(own_facts, dict) and isinstance(own_facts.get("models"), list):
        info |= own.row_for(own_facts["models"], spec, model.options.model, spec.id, where)
        name = str(info["name"])
    served, kind = info["model_id"], info.get("model_type")
    kinds = {str(name).lower(): facts for name, facts in kind.items()} if isinstance(kind, dict) else {}
    wanted = "reranker" if reranks else "embedding"
    if kinds and wanted not in kinds:
        raise ModelMismatchError(
            f"{where} serves {served!r} as {', '.join(kinds)}, and {spec.id} is wanted as {wanted}"
        )
    named = spec.id if name else model.options.model or spec.id
    if isinstance(served, str) and is_on_hub(served) and served.lower() != named.lower():
        raise ModelMismatchError(
            f"{where} serves {served!r}, and {named} is wanted; if it is a copy of that, say so with model={served!r}"
        )
    facts = kinds.get("embedding")
    pooling = str(facts.get("pooling", "")).lower().replace("_", "").replace("-", "") if isinstance(facts, dict) else ""
    pooled = _POOLING.get(pooling)
    if isinstance(spec, EmbeddingSpec) and pooled is not None and spec.pooling not in (None, pooled):
        raise ModelMismatchError(
            f"{where} pools {served!r} by {pooling!r}, and {spec.id} needs {spec.pooling!r}: start it with --pooling"
        )
    if (dtype := info.get("model_dtype")) in spec.banned_dtypes:
        raise ModelMismatchError(
            f"{where} runs {served!r} in {dtype}, in which it gives wrong results; use --dtype float32"
        )
    sha = info.get("model_sha")
    if isinstance(sha, str) and COMMIT.fullmatch(sha) and COMMIT.fullmatch(spec.revision) and sha != spec.revision:
        warn(
            f"{where} serves {spec.id} at revision {sha}, and the space of its vectors is named by {spec.revision}; if "
            f"the weights differ, pass revision={sha!r}",
            ServerModelWarning,
        )
    model.limit = whole(info.get("max_input_length"))
    most = whole(info.get("max_client_batch_size")) or 32
    model.batch_rows = min(model.options.batch_rows or most, most)
    model.most_tokens = whole(info.get("max_batch_tokens"))
    return name


def explain(model: ServerModel, status: int, words: Words, texts: int) -> EmbriefError | None:
    """Return what TEI's own errors are."""
    if (long := _LONG.search(words.raw)) is not None:
        return model.refused_as_long(texts, int(long[2]), int(long[1]))
    if status in (413, 422, 424, 400):
        # Validation, tokenizer and backend errors: the same request fails again.
        return BackendError(f"{model.http.where} refuses the request (HTTP {status}): {words}")
    return None


def _naming(name: str | None) -> dict[str, str]:
    return {} if name is None else {"model": name}


class TeiEmbedder(ServerEmbedder):
    """A model behind `/embed`."""

    _named: Mapping[str, str] = {}

    async def start(self) -> None:
        """Read what is served."""
        self._named = _naming(await learn(self, reranks=False))

    async def ask(self, texts: Sequence[str], fitted: Fitted, options: RunOptions) -> Any:
        """Send texts; TEI is asked to cut nothing and to normalise nothing."""
        return await self.http.post(
            "/embed",
            {"inputs": list(texts), "truncate": False, "normalize": False, **self._named},
            tokens=fitted.tokens,
            explain=lambda status, _, words: explain(self, status, words, len(texts)),
            texts=[*texts, *fitted.bodies],
        )


class TeiReranker(ServerReranker):
    """A reranker behind `/rerank`."""

    _named: Mapping[str, str] = {}

    async def start(self) -> None:
        """Read what is served."""
        self._named = _naming(await learn(self, reranks=True))

    async def ask(self, source: Source, documents: Sequence[str], tokens: int) -> NDArray[np.float64]:
        """Send one query and its documents; the scores are log-odds."""
        answer = await self.http.post(
            "/rerank",
            {"query": source.asked, "texts": list(documents), "raw_scores": True, "truncate": False, **self._named},
            tokens=tokens,
            explain=lambda status, _, words: explain(self, status, words, len(documents)),
            texts=[source.asked, *documents],
        )
        return scores(answer, len(documents), self.http.where)
