"""Ollama's `POST /api/embed`.

Source: Ollama's API description (docs/api.md) and source of August 2026.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from embrief.errors import BackendError, EmbriefError, ModelMismatchError, NonFiniteVectorError
from embrief.facts.specs import EmbeddingSpec
from embrief.servers import own
from embrief.servers.answers import whole
from embrief.servers.model import ServerEmbedder
from embrief.servers.runtime import served_name

if TYPE_CHECKING:
    from embrief.runtimes.base import LoadRequest, RunOptions
    from embrief.servers.counting import Fitted
    from embrief.servers.http import Words
    from embrief.servers.options import Ollama

_POOLING = {0: "none", 1: "mean", 2: "cls", 3: "last", 4: "rank"}
"""llama.cpp's numbers for them, in GGUF files."""
_TOKENIZER = "tokenizer.ggml"


class OllamaEmbedder(ServerEmbedder):
    """A model in Ollama."""

    batch_rows = 32
    keeps_limit = True

    def __init__(self, request: LoadRequest) -> None:
        """Ask nothing yet."""
        super().__init__(request)
        self.options: Ollama
        self.name = served_name("ollama", request.spec, self.options)
        self._end = ""

    async def start(self) -> None:
        """Read what Ollama says of the file: its width, pooling, context, and whether it adds the final token."""
        assert isinstance(self.spec, EmbeddingSpec)
        answer = await self.http.post("/api/show", {"model": self.name}, explain=self._explain_missing)
        if own.is_own(answer):
            self.name = own.name_for(self.name, self.http.where)
        info = answer.get("model_info") if isinstance(answer, dict) else None
        if not isinstance(info, dict):
            return
        family = info.get("general.architecture")
        where = f"{self.name!r} in Ollama at {self.http.where}"
        width = whole(info.get(f"{family}.embedding_length"))
        # Dense layers may follow, which the file's own width does not show.
        if width is not None and self.spec.hidden_size is not None and width != self.spec.hidden_size:
            raise ModelMismatchError(
                f"{where} has hidden states of {width} values, and {self.spec.id} has {self.spec.hidden_size}: it is "
                "another model or another size; name the right one as model="
            )
        kind = info.get(f"{family}.pooling_type")
        pooling = _POOLING.get(kind) if isinstance(kind, int) else None
        if pooling is not None and self.spec.pooling not in (None, pooling):
            raise ModelMismatchError(
                f"{where} pools by {pooling!r}, and {self.spec.id} needs {self.spec.pooling!r}: the file was made "
                "wrongly; pull another one"
            )
        self.limit = whole(info.get(f"{family}.context_length"))
        self._see_final_token(info, where)

    def _see_final_token(self, info: dict[str, Any], where: str) -> None:
        """Append the final token where the file does not ask for it."""
        assert isinstance(self.spec, EmbeddingSpec)
        token = self.spec.final_token
        if token is None:
            return
        # Of these kinds of tokenizers it is left out unless the file says otherwise; BERT's have it always.
        optional = info.get(f"{_TOKENIZER}.model") in ("gpt2", "llama")
        adds = info.get(f"{_TOKENIZER}.add_eos_token")
        if adds is False or (adds is None and optional):
            # Special tokens inside a text are read as what they are.
            self._end = token
            return
        number = info.get(f"{_TOKENIZER}.eos_token_id")
        right = self.tokens.number(token) if self.tokens is not None and optional else None
        if isinstance(number, int) and right is not None and number != right:
            raise ModelMismatchError(
                f"{where} puts token {number} behind a text, and {self.spec.id} was trained with {token!r} ({right}): "
                "the file was made wrongly; pull another one"
            )

    async def ask(self, texts: Sequence[str], fitted: Fitted, options: RunOptions) -> Any:
        """Send texts. Ollama is told to cut nothing, and given room: by default it cuts twice without a word."""
        room = self._room(options)
        body: dict[str, Any] = {
            "model": self.name,
            "input": [text + self._end for text in texts],
            "truncate": False,
            # A text over num_batch is cut to it after an error of the runner, in spite of truncate.
            "options": {"num_ctx": room, "num_batch": room},
        }
        if self.options.keep_alive is not None:
            body["keep_alive"] = self.options.keep_alive
        return await self.http.post(
            "/api/embed",
            body,
            tokens=fitted.tokens,
            explain=lambda status, _, words: self._explain(status, words, len(texts), options),
            texts=[*texts, *fitted.bodies],
        )

    def _room(self, options: RunOptions) -> int:
        return min(options.max_tokens, self.limit or options.max_tokens)

    def _explain(self, status: int, words: Words, texts: int, options: RunOptions) -> EmbriefError | None:
        if "context length" in words.raw or "too large to process" in words.raw:
            return self.refused_as_long(texts, limit=self._room(options))
        if "NaN" in words.raw and ("Inf" in words.raw or "unsupported value" in words.raw):
            if texts == 1:
                return NonFiniteVectorError(
                    f"{self.name!r} in Ollama gives NaN or infinity for the text at index 0; take a file in another "
                    "number format than float16",
                    index=0,
                )
            return BackendError(f"{self.http.where} computed NaN for one of {texts} texts")
        return self._explain_missing(status, None, words)

    def _explain_missing(self, status: int, _body: Any, words: Words) -> EmbriefError | None:
        # A page that does not exist is not found either.
        if status == 404 and "model" in words.raw:
            return ModelMismatchError(
                f"Ollama at {self.http.where} does not have {self.name!r}: run `ollama pull {self.name}` there, or "
                "name the one that it has as model="
            )
        return None
