"""Servers with OpenAI's `POST /embeddings`.

Source: OpenAI's API reference; behaviour of llama-server b11434, llama_cpp.server 0.3.36, Infinity 0.0.78 as measured,
of vLLM by its documentation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from embrief.errors import BackendError, ModelMismatchError, UnavailableError
from embrief.facts.specs import EmbeddingSpec
from embrief.servers.http import Again
from embrief.servers.keys import PROVIDER_KEYS
from embrief.servers.model import ServerEmbedder
from embrief.servers.runtime import served_name

if TYPE_CHECKING:
    from embrief.runtimes.base import LoadRequest, RunOptions
    from embrief.servers.counting import Fitted
    from embrief.servers.options import OpenAI

HOSTED_TOKENS = 300_000
"""Tokens per request that OpenAI takes (API reference, embeddings)."""
_NUMBERS = re.compile(r"(\d+) tokens")
_CROWDED = "Context size has been exceeded"
"""llama-server's slots share one context: texts that fit one by one may not fit together."""
_LONG = re.compile(
    r"maximum context length|context size|context_size|too large to process|input length|max_model_len|too long|"
    r"reduce your prompt|maximum input length",
    re.IGNORECASE,
)


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
        if self.options.address.host in PROVIDER_KEYS:
            self.most_tokens = HOSTED_TOKENS

    async def start(self) -> None:
        """See which models there are, how much they take, and who puts the final token behind a text."""
        assert isinstance(self.spec, EmbeddingSpec)
        if self.options.final_token == "append":
            self._end = self.spec.final_token or ""
        if self.options.address.host in PROVIDER_KEYS:
            return
        try:
            answer = await self.http.get("/models")
        except UnavailableError:
            raise
        except BackendError as error:
            if isinstance(error, PermissionError):
                raise
            # Not every server has the list.
            return
        listed = answer.get("data") if isinstance(answer, dict) else None
        models = [item for item in listed or () if isinstance(item, dict) and isinstance(item.get("id"), str)]
        if not models:
            return
        served = self._chosen(models)
        self.name = served["id"]
        self.limit = _whole(served.get("max_model_len"))
        if served.get("owned_by") == "llamacpp":
            await self._see_final_token()

    def _chosen(self, models: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the model of the list that is meant: many servers take any name and answer with what they have."""
        wanted = self.name.lower()
        names = {str(item["id"]).lower(): item for item in models}
        found = names.get(wanted)
        if found is None and self.options.model is None:
            # Others are called by a path, or without the owner.
            ends = [item for name, item in names.items() if name.rpartition("/")[2] == wanted.rpartition("/")[2]]
            found = ends[0] if len(ends) == 1 else models[0] if len(models) == 1 else None
        if found is None:
            shown = ", ".join(repr(item["id"]) for item in models[:8])
            raise ModelMismatchError(
                f"{self.http.where} has no model {self.name!r}; it serves {shown}: name the one that is {self.spec.id} "
                "as model=, if it is among them"
            )
        return found

    async def _see_final_token(self) -> None:
        """Append the final token where a llama-server leaves it out: its file decides, and many are wrong."""
        assert isinstance(self.spec, EmbeddingSpec)
        token = self.spec.final_token
        if token is None:
            return
        try:
            url = self.options.address.without("/v1") + "/tokenize"
            plain, given = [
                (await self.http.post(url, {"content": text, "add_special": True})).get("tokens")
                for text in ("a", f"a{token}")
            ]
        except (BackendError, AttributeError):
            return
        # With the token typed in there is one more of it, in either case.
        if plain and given and len(given) == len(plain) + 1 and plain[-1:] != given[-1:]:
            self._end = token

    async def ask(self, texts: Sequence[str], fitted: Fitted, options: RunOptions) -> Any:
        """Send texts, in base64 unless the server does not know it."""
        body: dict[str, Any] = {"model": self.name, "input": [text + self._end for text in texts]}
        if self._encoding is not None:
            body["encoding_format"] = self._encoding
        try:
            answer = await self.http.post(
                "/embeddings",
                body,
                tokens=fitted.tokens,
                explain=lambda status, found, words: self._explain(status, found, words, len(texts)),
                texts=texts,
            )
        except _NoEncodingError:
            self._encoding = None
            return await self.ask(texts, fitted, options)
        if fitted.counts is not None:
            self._check_usage(answer, fitted, len(texts))
        return answer

    def _explain(self, status: int, body: Any, words: str, texts: int) -> Exception | None:
        if _CROWDED in words:
            return Again(BackendError(f"{self.http.where} has no room for what runs there at once: {words}"))
        if status in (400, 422) and self._encoding is not None and "encoding_format" in words:
            return _NoEncodingError(words)
        error = body.get("error") if isinstance(body, dict) else None
        kind = error.get("type") if isinstance(error, dict) else None
        long = kind == "exceed_context_size_error" or (status in (400, 413, 422, 500) and _LONG.search(words))
        if long:
            told = error if isinstance(error, dict) else {}
            tokens, limit = _whole(told.get("n_prompt_tokens")), _whole(told.get("n_ctx"))
            if tokens is None and (numbers := _NUMBERS.findall(words)):
                tokens = max(map(int, numbers)) if "maximum context length" not in words else None
            return self.refused_as_long(texts, tokens, limit)
        if status == 404 and "model" in words.lower():
            return ModelMismatchError(f"{self.http.where} has no model {self.name!r}: {words}; name it as model=")
        if status == 500 and "NaN" in words:
            return BackendError(f"{self.http.where} computed NaN: {words}")
        return None

    def _check_usage(self, answer: Any, fitted: Fitted, texts: int) -> None:
        """Refuse an answer to fewer tokens than were sent: llama_cpp.server cuts at its batch size, and says so here.

        More are no fault: some servers count letters.
        """
        usage = answer.get("usage") if isinstance(answer, dict) else None
        read = _whole(usage.get("prompt_tokens")) if isinstance(usage, dict) else None
        # A final token is not counted everywhere.
        if read is not None and 0 < read < fitted.tokens - 2 * texts:
            raise BackendError(
                f"{self.http.where} read {read} of {fitted.tokens} tokens: it cuts texts without saying so; raise its "
                "limits (of context and of batch), or lower max_tokens"
            )


class _NoEncodingError(BackendError):
    """The server does not know `encoding_format`."""


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
