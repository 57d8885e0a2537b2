"""Servers with a rerank route: Jina, Cohere, vLLM, llama-server, Infinity.

Source: the providers' API references; vLLM's documentation; llama-server b11434 and Infinity 0.0.78 as measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from embrief.errors import (
    ArgumentError,
    BadAnswerError,
    ModelMismatchError,
    placed,
)
from embrief.facts.prompts import Source, group_by_query, pair_template
from embrief.facts.specs import RerankerSpec
from embrief.runtimes.base import Output
from embrief.servers import pictures
from embrief.servers.answers import OTHER_KIND, in_order, items_of, log_odds, scores, too_long, whole
from embrief.servers.keys import PROVIDER_KEYS
from embrief.servers.model import ServerReranker
from embrief.servers.own import OWNER, UNCUT, is_own, takes_images
from embrief.servers.runtime import served_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from embrief.facts.prompts import Content, Rendered
    from embrief.runtimes.base import LoadRequest, RunOptions
    from embrief.servers.http import Words
    from embrief.servers.options import RerankHttp

PROBE = "What is the capital of China?"
PROBES = (
    "The capital of China is Beijing.",
    "Gravity is a force that attracts two bodies towards each other. It gives weight to physical objects and is "
    "responsible for the movement of planets around the sun.",
)
"""A query, a document that answers it and one that does not: from the model card of Qwen3-Reranker."""
LEAST_DIFFERENCE = 2.0
"""Log-odds between them. Published models are apart by 6 to 20; a file without a score head by about 1."""
_SLOT = "{document}"


class RerankHttpModel(ServerReranker):
    """A reranker behind `/rerank`."""

    batch_rows = 64

    def __init__(self, request: LoadRequest) -> None:
        """Ask nothing yet."""
        super().__init__(request)
        assert isinstance(self.spec, RerankerSpec)
        self.options: RerankHttp
        self.name = served_name("rerank-http", request.spec, self.options)
        self._scale: Literal["auto", "probability", "log_odds"] = self.options.scores
        self._more: dict[str, Any] = {}
        """What requests say besides, to a server that knows it."""
        self._sees: dict[str, Any] | None = None
        """What a server of embrief's says of a model that takes pictures."""
        self._templated = self.spec.scoring != "classifier"
        self.renders_here = self._templated and self.options.template == "client"
        self._fills_slots = self._templated and not self.renders_here
        """Whether the server may put the query into a template before it looks for the document's place."""

    async def start(self) -> None:
        """Ask who it is, and score two pairs: a file without a score head answers with numbers, too."""
        if self.options.address.host in PROVIDER_KEYS:
            # They have no such files, count every request, and answer with probabilities.
            self._scale = "probability" if self._scale == "auto" else self._scale
            return
        served = await self.listed(self.name)
        if self.spec.images is not None:
            if served is None or not is_own(served) or not takes_images(served):
                raise pictures.refuse_others(self.http.where, self.spec)
            self._sees = served
        if served is not None:
            self.name = served["id"]
            if served.get("owned_by") == "infinity":
                self._check_edges()
            # vLLM and embrief fill their templates at one go.
            self._fills_slots = self._fills_slots and served.get("owned_by") not in ("vllm", OWNER)
            if served.get("owned_by") == OWNER:
                self._check_own()
                self._scale, self._more = "probability", {**UNCUT, "return_documents": False}
                return
        if self.options.probe == "off" and self._scale != "auto":
            return
        assert isinstance(self.spec, RerankerSpec)
        found = await self._scored(Source("pair", PROBE, self.spec.default_instruction), PROBES, 0)
        if self._scale == "auto":
            self._scale = "probability" if ((found >= 0) & (found <= 1)).all() else "log_odds"
        good, bad = self._log_odds(found).tolist()
        if self.options.probe == "refuse" and good - bad < LEAST_DIFFERENCE:
            raise ModelMismatchError(
                f"{self.http.where} scores a document that answers its query with {found[0]:.4g} and one that does not "
                f"with {found[1]:.4g}: its scores mean nothing. The file may lack the score head (llama.cpp needs one "
                "that its own converter made as a reranker), or the template is missing; RerankHttp(probe='off') "
                "leaves this check out"
            )

    def _check_own(self) -> None:
        """Refuse to put a template around what a server of embrief's puts one around."""
        if self.renders_here:
            raise ModelMismatchError(
                f"{self.http.where} is a server of embrief's, which puts the template of {self.spec.id} around a pair "
                "itself: leave out RerankHttp(template='client')"
            )

    def _check_edges(self) -> None:
        """Refuse Infinity where white space at the ends of query or document is a part of the model's template.

        Infinity takes it off both (0.0.78, crossencoder/torch.py), and puts no template around them by itself.
        """
        assert isinstance(self.spec, RerankerSpec)
        around, _ = pair_template(PROBE, self.spec, None)
        if self._templated and (around.head.strip() != around.head or around.tail.strip() != around.tail):
            raise ModelMismatchError(
                f"{self.http.where} is Infinity, which takes white space off the ends of texts, and the template of "
                f"{self.spec.id} has some there: its scores would be those of other texts; run the model here, or on "
                "a server that knows the template (vLLM, llama-server)"
            )

    def parts(self, inputs: Sequence[Rendered], options: RunOptions) -> list[range]:
        """Return the places of a call's pairs, request by request.

        Raises:
            ArgumentError: The server sees pictures smaller than they are to be seen.
        """
        if self._sees is None:
            return super().parts(inputs, options)
        pictures.check_max_pixels(inputs, self._sees.get("max_pixels"), options, self.http.where)
        return pictures.parts(inputs, self.batch_rows, self.spec, options)

    async def arun(self, inputs: Sequence[Rendered], options: RunOptions) -> Output:
        """Return the log-odds of at most `batch_rows` pairs."""
        if self._sees is None:
            return await super().arun(inputs, options)
        import numpy as np

        logits, truncated = np.empty(len(inputs), np.float64), np.zeros(len(inputs), np.bool_)
        for source, places in group_by_query(inputs):
            with placed(places):
                answer = await self._ask_seeing(source, [inputs[place].body for place in places], options)
                logits[places] = self._log_odds(scores(answer, len(places), self.http.where))
                rows = in_order(items_of(answer, self.http.where), len(places), self.http.where)
                truncated[places] = [isinstance(row, dict) and row.get("truncated") is True for row in rows]
        return Output.scores(logits, None, truncated)

    async def _ask_seeing(self, source: Source, bodies: Sequence[Content], options: RunOptions) -> Any:
        """Send a query and its documents, perhaps with pictures, and return the answer.

        Raises:
            ArgumentError: The server reads more than it may.
        """
        assert self._sees is not None
        limit = whole(self._sees.get("max_model_len"))
        if limit is not None and options.max_tokens < limit:
            raise ArgumentError(
                f"{self.http.where} reads {limit} tokens of a pair, and max_tokens={options.max_tokens} cannot be kept "
                "there; leave it out, or set it there"
            )
        query, *documents = [
            item if isinstance(item, str) else {"content": item}
            for item in await pictures.contents([source.query or "", *bodies], self.spec, options)
        ]
        body = {"model": self.name, "query": query, "documents": documents, "top_n": len(documents)} | self._more
        # It cuts at its own limit.
        body["truncate"] = not options.refuse_long and limit == options.max_tokens
        return await self.http.post(
            "/rerank",
            body,
            explain=lambda status, found, words: self._explain(status, found, words, len(documents)),
            texts=pictures.texts([source.query or "", *bodies]),
        )

    async def ask(self, source: Source, documents: Sequence[str], tokens: int) -> NDArray[np.float64]:
        """Send one query and its documents; return log-odds.

        Raises:
            ArgumentError: The server would put a document into the query.
        """
        if self._fills_slots and _SLOT in (source.query or ""):
            raise ArgumentError(
                f"the query holds {_SLOT!r}, and {self.http.where} would put each document there: it fills its "
                "template with the query first; write it otherwise, or run the model here"
            )
        return self._log_odds(await self._scored(source, documents, tokens))

    async def _scored(self, source: Source, documents: Sequence[str], tokens: int) -> NDArray[np.float64]:
        query = source.asked
        if self.renders_here:
            query, documents = self.around(source, documents)
        body = {"model": self.name, "query": query, "documents": list(documents), "top_n": len(documents)} | self._more
        answer = await self.http.post(
            "/rerank",
            body,
            tokens=tokens,
            explain=lambda status, found, words: self._explain(status, found, words, len(documents)),
            texts=[query, *documents],
        )
        return scores(answer, len(documents), self.http.where)

    def _log_odds(self, found: NDArray[np.float64]) -> NDArray[np.float64]:
        if self._scale == "log_odds":
            return found
        if ((found < 0) | (found > 1)).any():
            outside = found[(found < 0) | (found > 1)][0]
            raise BadAnswerError(
                f"{self.http.where} answers with the score {outside:.4g}, and its scores are read as probabilities; "
                "RerankHttp(scores='log_odds') reads them as log-odds"
            )
        return log_odds(found)

    def _explain(self, status: int, body: Any, words: Words, documents: int) -> Exception | None:
        if (crowded := self.crowded(words, documents)) is not None:
            return crowded
        if status == 501 and "not support" in words.raw:
            return ModelMismatchError(
                f"{self.http.where} does not rerank: {words}; start llama-server with --reranking"
            )
        if OTHER_KIND in words.raw:
            return ModelMismatchError(f"{self.http.where} does not rerank with {self.name!r}: {words}")
        if (long := too_long(status, body, words)) is not None:
            return self.refused_as_long(documents, long.tokens, long.limit)
        if status == 404 and "model" in words.raw.lower():
            return ModelMismatchError(f"{self.http.where} has no model {self.name!r}: {words}; name it as model=")
        return None
