"""Servers with OpenAI's `POST /embeddings`.

Source: OpenAI's API reference; behaviour of llama-server b11434, llama_cpp.server 0.3.36, Infinity 0.0.78 as measured,
of vLLM by its documentation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from embrief.errors import (
    ArgumentError,
    BackendError,
    BadAnswerError,
    EndpointError,
    ModelMismatchError,
    ServerError,
    placed,
)
from embrief.facts.prompts import group_by_query
from embrief.facts.specs import EmbeddingSpec
from embrief.runtimes.base import Output
from embrief.servers import own, pictures
from embrief.servers.answers import OTHER_KIND, in_order, items_of, too_long, whole
from embrief.servers.keys import PROVIDER_KEYS
from embrief.servers.model import ServerEmbedder
from embrief.servers.runtime import served_name

if TYPE_CHECKING:
    from embrief.facts.prompts import Content, Rendered, Source
    from embrief.runtimes.base import LoadRequest, RunOptions
    from embrief.servers.counting import Fitted
    from embrief.servers.http import Words
    from embrief.servers.options import OpenAI

HOSTED_TOKENS, HOSTED_TEXTS = 300_000, 2048
"""Per request, at OpenAI (API reference, embeddings)."""


class OpenAIEmbedder(ServerEmbedder):
    """A model behind `/embeddings`."""

    batch_rows = 64

    def __init__(self, request: LoadRequest) -> None:
        """Ask nothing yet."""
        super().__init__(request)
        self.options: OpenAI
        self.name = served_name("openai", request.spec, self.options)
        self._encoding: str | None = self.options.encoding
        self._end = ""
        self._more: Mapping[str, Any] = {}
        """What requests say besides, to a server that knows it."""
        self._sees: Mapping[str, Any] | None = None
        """What a server of embrief's says of a model that takes pictures: it puts the prompts around inputs then."""
        self._hosted = self.options.address.host in PROVIDER_KEYS
        if self._hosted:
            self.most_tokens = HOSTED_TOKENS
            self.batch_rows = min(self.batch_rows, HOSTED_TEXTS)

    async def start(self) -> None:
        """See which models there are, how much they take, and who puts the final token behind a text."""
        assert isinstance(self.spec, EmbeddingSpec)
        if self.options.final_token == "append":
            self._end = self.spec.final_token or ""
        if self._hosted:
            return
        served = await self.listed(self.name)
        if self.spec.images is not None:
            if served is None or not own.is_own(served) or not own.takes_images(served):
                raise pictures.refuse_others(self.http.where, self.spec)
            self._sees = served
        if served is None:
            return
        self.name = served["id"]
        self._more = own.UNCUT if own.is_own(served) else {}
        self.limit = whole(served.get("max_model_len"))
        if served.get("owned_by") == "llamacpp":
            self._see_file(served.get("meta"))
            await self._see_task()
            await self._see_final_token()

    def _see_file(self, facts: Any) -> None:
        """Read what llama-server says of its file: its context, and its width."""
        if not isinstance(facts, dict):
            return
        context = whole(facts.get("n_ctx"))
        self.limit = context - 1 if context else None
        width = whole(facts.get("n_embd"))
        # Dense layers may follow, which the file's own width does not show.
        if width is not None and self.spec.hidden_size is not None and width != self.spec.hidden_size:
            raise ModelMismatchError(
                f"{self.http.where} serves a file whose hidden states have {width} values, and {self.spec.id} has "
                f"{self.spec.hidden_size}: it is another model or another size"
            )

    async def _see_task(self) -> None:
        """Refuse a llama-server that reranks: asked for embeddings it answers, with scores and what was in memory."""
        try:
            await self.http.post(self._root + "/rerank", {"query": "a", "documents": ["a"]})
        except EndpointError:
            return
        except ServerError:
            raise
        except BackendError:
            return
        raise ModelMismatchError(
            f"{self.http.where} serves a reranker (llama-server --rerank), whose vectors mean nothing; start one with "
            "--embedding"
        )

    async def _see_final_token(self) -> None:
        """Append the final token where a llama-server leaves it out: its file decides, and many are wrong."""
        assert isinstance(self.spec, EmbeddingSpec)
        token = self.spec.final_token
        if token is None:
            return
        try:
            text = await self._ids("a", special=True)
            *plain, number = await self._ids(f"a{token}", special=False)
        except EndpointError:
            return
        except ServerError:
            raise
        except (BackendError, ValueError):
            return
        # What stands around the text depends on the file.
        places = [place for place in range(len(text)) if text[place : place + len(plain)] == plain]
        behind = text[places[0] + len(plain) :] if places else []
        if behind == [number] and self._end:
            raise ModelMismatchError(
                f"{self.http.where} puts {token!r} behind a text by itself: leave out final_token='append'"
            )
        if behind not in ([], [number]):
            raise ModelMismatchError(
                f"{self.http.where} puts other tokens behind a text than {token!r}, which {self.spec.id} was trained "
                "with: its file is wrong; convert it again, or take another one"
            )
        self._end = "" if behind else token

    async def _ids(self, text: str, *, special: bool) -> list[int]:
        answer = await self.http.post(self._root + "/tokenize", {"content": text, "add_special": special})
        ids = answer.get("tokens") if isinstance(answer, dict) else None
        if not isinstance(ids, list) or not all(type(number) is int for number in ids):
            raise BadAnswerError(f"{self._root}/tokenize answers without token ids")
        return ids

    @property
    def _root(self) -> str:
        return self.options.address.without("/v1")

    def parts(self, inputs: Sequence[Rendered], options: RunOptions) -> list[range]:
        """Return the places of a call's inputs, request by request.

        Raises:
            ArgumentError: The server sees pictures smaller than they are to be seen.
        """
        if self._sees is None:
            return super().parts(inputs, options)
        pictures.check_max_pixels(inputs, self._sees.get("max_pixels"), options, self.http.where)
        return pictures.parts(inputs, self.batch_rows, self.spec, options)

    async def arun(self, inputs: Sequence[Rendered], options: RunOptions) -> Output:
        """Return the vectors of at most `batch_rows` inputs.

        A model that takes pictures reads no prompt in a text, which could forge one: a server of embrief's puts them.
        """
        if self._sees is None:
            return await super().arun(inputs, options)
        import numpy as np

        assert isinstance(self.spec, EmbeddingSpec)
        vectors = np.empty((len(inputs), self.spec.dim), np.float32)
        counts, truncated = np.zeros(len(inputs), np.int64), np.zeros(len(inputs), np.bool_)
        for source, places in group_by_query(inputs):
            with placed(places):
                answer = await self._ask_seeing(source, [inputs[place].body for place in places], options)
                rows = in_order(items_of(answer, self.http.where), len(places), self.http.where)
                told = [row if isinstance(row, dict) else {} for row in rows]
                vectors[places] = self.vectors(answer, len(places))
                counts[places] = [whole(row.get("tokens")) or 0 for row in told]
                truncated[places] = [row.get("truncated") is True for row in told]
                for index in np.flatnonzero(counts[places] > options.max_tokens).tolist():
                    if self.limit != options.max_tokens:
                        raise self.too_long(index, int(counts[places][index]), options.max_tokens)
        return Output.dense(vectors, counts, truncated)

    async def _ask_seeing(self, source: Source, bodies: Sequence[Content], options: RunOptions) -> Any:
        """Send inputs of one role, instruction and task, whose prompts the server puts, and return its answer.

        Raises:
            ArgumentError: They have a title, which cannot be said.
        """
        if source.title:
            raise ArgumentError(f"a title cannot be sent to {self.http.where}; put it into the text", index=0)
        body: dict[str, Any] = {
            "model": own.name_as(self.name, "plain" if source.task == "" else source.role),
            "input": await pictures.contents(bodies, self.spec, options),
            "encoding_format": "base64",
            # It cuts at its own limit.
            "truncate": not options.refuse_long and self.limit == options.max_tokens,
        }
        if source.role == "query" and source.instruction is not None:
            body["instruction"] = source.instruction
        if source.task:
            body["prompt_name"] = source.task
        return await self.http.post(
            "/embeddings",
            body,
            explain=lambda status, found, words: self._explain(status, found, words, len(bodies), None),
            texts=pictures.texts(bodies),
        )

    async def ask(self, texts: Sequence[str], fitted: Fitted, options: RunOptions) -> Any:
        """Send texts, in base64 unless the server does not know it."""
        sent = [text + self._end for text in texts]
        body: dict[str, Any] = {"model": self.name, "input": sent, **self._more}
        # Another request may find out meanwhile that the server does not know it.
        encoding = self._encoding
        if encoding is not None:
            body["encoding_format"] = encoding
        try:
            answer = await self.http.post(
                "/embeddings",
                body,
                tokens=fitted.tokens,
                explain=lambda status, found, words: self._explain(status, found, words, len(texts), encoding),
                texts=[*texts, *fitted.bodies],
            )
        except _NoEncodingError:
            self._encoding = None
            return await self.ask(texts, fitted, options)
        usage = answer.get("usage") if isinstance(answer, dict) else None
        self.check_read(whole(usage.get("prompt_tokens")) if isinstance(usage, dict) else None, fitted, sent)
        return answer

    def _explain(self, status: int, body: Any, words: Words, texts: int, encoding: str | None) -> Exception | None:
        if (crowded := self.crowded(words, texts)) is not None:
            return crowded
        if status in (400, 422) and encoding is not None and "encoding_format" in words.raw:
            return _NoEncodingError(str(words))
        if (long := too_long(status, body, words)) is not None:
            return self.refused_as_long(texts, long.tokens, long.limit)
        if status == 501 and "not support" in words.raw:
            return ModelMismatchError(f"{self.http.where} does not embed: {words}; start llama-server with --embedding")
        if OTHER_KIND in words.raw:
            return ModelMismatchError(f"{self.http.where} does not embed with {self.name!r}: {words}")
        if status == 400 and "pooling type" in words.raw.lower():
            return ModelMismatchError(f"{self.http.where} does not pool: {words}; start it with the model's pooling")
        if status == 404 and "model" in words.raw.lower():
            return ModelMismatchError(f"{self.http.where} has no model {self.name!r}: {words}; name it as model=")
        return None


class _NoEncodingError(BackendError):
    """The server does not know `encoding_format`."""
