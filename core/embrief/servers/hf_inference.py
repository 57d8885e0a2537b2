"""Hugging Face's own inference provider, `hf-inference`: feature extraction behind the hub's router.

What is sent is what `huggingface_hub.InferenceClient.feature_extraction` sends (1.3 to 1.33), and a test compares the
two. It is not sent through that client, which cannot keep what is promised of servers here:

- its connections follow redirections, and are set for the whole process alone (`set_async_client_factory`);
- without a token it takes the one in HF_TOKEN or the saved one, whatever address `model=` names, and `token=False` is
  refused: the hub's token would go to any server;
- it asks the hub about each model first, at another address, without a limit of time;
- an answer is read whole however large it is, and null in it becomes NaN.

Of huggingface_hub the switch is used that it is known for: while `HF_HUB_OFFLINE=1` nothing is sent, to no address.
Its client refuses even a server on this machine then.

Source: huggingface_hub 1.33, inference/_providers/hf_inference.py; the provider's API description of feature
extraction; text-embeddings-inference, which runs most of the models there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from embrief.errors import BadAnswerError, ModelMismatchError, RateLimitedError, UnavailableError
from embrief.facts.specs import EmbeddingSpec
from embrief.servers import tei
from embrief.servers.answers import in_order, items_of, one_each, vectors
from embrief.servers.http import Again
from embrief.servers.model import ServerEmbedder
from embrief.servers.runtime import served_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from embrief.runtimes.base import LoadRequest, RunOptions
    from embrief.servers.counting import Fitted
    from embrief.servers.http import Words
    from embrief.servers.options import HfInference

_ABSENT = re.compile(r"not supported|does not exist|not found|doesn't support", re.IGNORECASE)
_LONG = re.compile(r"too long|longer than|exceeds|maximum sequence length|must match the size", re.IGNORECASE)


class HfInferenceEmbedder(ServerEmbedder):
    """A model behind `/pipeline/feature-extraction`."""

    def __init__(self, request: LoadRequest) -> None:
        """Ask nothing yet.

        Raises:
            UnavailableError: The hub is switched off.
        """
        from huggingface_hub import constants

        super().__init__(request)
        self.options: HfInference
        if constants.is_offline_mode():
            raise UnavailableError(
                f"HF_HUB_OFFLINE=1 switches off all that goes to the hub, and nothing is sent to {self.http.where} "
                "either, wherever that is: unset it (and TRANSFORMERS_OFFLINE) before huggingface_hub is imported, or "
                "take another runtime"
            )
        self.name = served_name("hf-inference", request.spec, self.options)
        self._path = f"/{self.options.provider}/models/{quote(self.name, safe='/')}/pipeline/feature-extraction"

    async def ask(self, texts: Sequence[str], fitted: Fitted, options: RunOptions) -> Any:
        """Send texts. Servers of text-embeddings-inference's kind are asked to cut nothing; others may do so."""
        return await self.http.post(
            self._path,
            {"inputs": list(texts), "normalize": True, "truncate": False},
            tokens=fitted.tokens,
            explain=lambda status, body, words: self._explain(status, body, words, len(texts)),
            texts=texts,
        )

    def vectors(self, answer: Any, count: int) -> NDArray[np.float32]:
        """Return the vectors of an answer: float32, (n, dim of the model).

        Raises:
            BadAnswerError: It has vectors per token.
        """
        assert isinstance(self.spec, EmbeddingSpec)
        where = self.http.where
        items = items_of(answer, where)
        if any(isinstance(item, list) and item and isinstance(item[0], list) for item in items):
            raise BadAnswerError(
                f"{where} answers with a vector per token of each text: it does not know how {self.name} pools, as it "
                "is with models that have no files of sentence-transformers; take another runtime for it"
            )
        items = in_order(one_each(items, count, where), count, where)
        return vectors(items, self.spec.dim, where=where, model=self.spec.id)

    def _explain(self, status: int, body: Any, words: Words, texts: int) -> Exception | None:
        where = self.http.where
        if status == 503 and isinstance(body, dict) and "estimated_time" in body:
            seconds = body["estimated_time"]
            known = type(seconds) in (int, float) and 0 <= seconds < 1e6
            about = f", which takes about {seconds:.0f} s more" if known else ""
            error = UnavailableError(f"{where} is loading {self.name}{about} (HTTP 503)")
            return Again(error, after=float(seconds) if known else None)
        if status == 402:
            # Neither the key nor the text is at fault, and no wait helps.
            return RateLimitedError(f"{where} wants to be paid before it answers (HTTP 402): {words}")
        if status in (400, 404) and _ABSENT.search(words.raw):
            return ModelMismatchError(f"{where} does not serve {self.name}: {words}; name one that it serves as model=")
        if status in (400, 413, 422) and _LONG.search(words.raw):
            return self.refused_as_long(texts)
        return tei.explain(self, status, words, texts)
