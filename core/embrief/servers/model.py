"""What models on servers have in common: reaching the server first, counting and cutting texts, what it refuses."""

from __future__ import annotations

import asyncio
import re
from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from embrief.errors import (
    BackendError,
    EmbriefError,
    EndpointError,
    ModelMismatchError,
    ServerError,
    ServerModelWarning,
    UnavailableError,
    placed,
    warn,
)
from embrief.facts.prompts import group_by_query, pair_template
from embrief.facts.specs import EmbeddingSpec, RerankerSpec
from embrief.runtimes.base import Output, Remote
from embrief.servers import own
from embrief.servers.answers import CROWDED, in_order, items_of, vectors
from embrief.servers.counting import Tokens, fit, lengths, over_the_servers_limit
from embrief.servers.http import Again, Client, Words
from embrief.servers.options import ServerOptions
from embrief.servers.pictures import holds_pictures
from embrief.system import exiting
from embrief.system.event_loop import submit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from embrief.facts.prompts import Rendered, Source
    from embrief.runtimes.base import LoadRequest, RunOptions
    from embrief.servers.counting import Fitted


_MANY_LETTERS, _MANY_VALUES = 20_000, 1_000_000
"""What takes longer than a few milliseconds to cut, or to turn into numbers."""


class ServerModel(Remote):
    """A model at one address. A class per kind of server says how it is asked."""

    limit: int | None = None
    """Tokens per text that the server takes, if it says so."""
    most_tokens: int | None = None
    """Tokens per request that it takes, if it is known."""
    keeps_limit: ClassVar[bool] = False
    """Whether requests tell the server how many tokens a text may have."""

    def __init__(self, request: LoadRequest) -> None:
        """Ask nothing yet.

        Raises:
            UnauthorizedError: The key that is named is not there.
            ArgumentError: The tokenizer that is named is not there.
        """
        assert isinstance(request.options, ServerOptions)
        self.spec, self.options = request.spec, request.options
        address = request.options.address
        self.endpoint = address.origin
        self.in_flight = request.options.in_flight
        self.deadline = request.options.deadline
        self.batch_rows = request.options.batch_rows or self.batch_rows
        self.http = Client(request.options)
        self.tokens = Tokens.at_hand(request.spec, request.options.tokenizer)

    async def start(self) -> None:
        """Ask the server what it is, as far as it says that; refuse one that serves something else.

        Raises:
            UnavailableError, UnauthorizedError, RateLimitedError: As the server is.
            ModelMismatchError: It serves another model.
        """

    async def listed(self, name: str) -> dict[str, Any] | None:
        """Return what a server's list of models says of the one that is meant; `None`: it has no list.

        Many servers take any name and answer with what they have.

        Args:
            name: What the server is thought to call it.

        Raises:
            ModelMismatchError: It is not among them, or the only one is another.
        """
        try:
            answer = await self.http.get("/models")
        except EndpointError:
            return None
        except ServerError:
            raise
        except BackendError:
            return None
        listed = answer.get("data") if isinstance(answer, dict) else None
        models = [item for item in listed or () if isinstance(item, dict) and isinstance(item.get("id"), str)]
        if models and own.is_own(models[0]):
            row = own.row_for(models, self.spec, self.options.model, name, self.http.where)
            return {**row, "id": row["name"]}
        return self._chosen(models, name) if models else None

    def _chosen(self, models: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
        found = {item["id"].lower(): item for item in models}.get(name.lower())
        if found is not None:
            return found
        # What the user says must be there as it is. Else others are called by a path, or without the owner.
        copies = [item for item in models if names_it(item["id"], name)] if self.options.model is None else []
        if len(copies) == 1:
            return copies[0]
        if self.options.model is None and len(models) == 1 and not is_on_hub(models[0]["id"]):
            only: str = models[0]["id"]
            if not is_path(only):
                warn(
                    f"{self.http.where} serves {only!r}, which does not say whether it is {self.spec.id}; if it is, "
                    f"say so with model={only!r}",
                    ServerModelWarning,
                )
            return models[0]
        shown = ", ".join(repr(item["id"]) for item in models[:8])
        raise ModelMismatchError(
            f"{self.http.where} has no model {name!r}; it serves {shown}: name the one that is {self.spec.id} as "
            "model=, if it is among them"
        )

    def started(self) -> ServerModel:
        """Return the model once its server has answered, waiting on this thread."""
        future = submit(self._start())
        try:
            future.result()
        except BaseException:
            self.close()
            raise
        finally:
            future.cancel()
        return self

    async def _start(self) -> None:
        try:
            async with asyncio.timeout(self.deadline):
                await self.start()
        except TimeoutError:
            raise UnavailableError(
                f"{self.http.where} did not say what it is within the deadline of {self.deadline:g} s"
            ) from None

    def parts(self, inputs: Sequence[Rendered], options: RunOptions) -> list[range]:
        """Return the places of a call's inputs, request by request, within the server's limits of texts and tokens."""
        budgets = [budget for budget in (self.most_tokens, options.batch_tokens) if budget is not None]
        if not budgets:
            return super().parts(inputs, options)
        found: list[range] = []
        start = total = 0
        for index, item in enumerate(inputs):
            # English has some four bytes per token. A bound that any text keeps would make requests far too small; what
            # is too much for the server after all is halved.
            size = min(len(item.text.encode("utf-8", "surrogatepass")) // 2 + 1, options.max_tokens)
            if index > start and (index - start >= self.batch_rows or total + size > min(budgets)):
                found.append(range(start, index))
                start, total = index, 0
            total += size
        return [*found, range(start, len(inputs))]

    def check(self, inputs: Sequence[Rendered], options: RunOptions) -> None:
        """Raise what can be told of the lengths of texts without asking the server; of pictures that is nothing."""
        if not holds_pictures(inputs):
            self.fitted(inputs, options)

    def count(self, inputs: Sequence[Rendered], options: RunOptions) -> NDArray[np.int64] | None:
        """Return the length of each text by the model's tokenizer; `None` where it is not at hand, and of pictures."""
        return None if self.tokens is None or holds_pictures(inputs) else lengths(inputs, self.tokens)[0]

    def fitted(self, inputs: Sequence[Rendered], options: RunOptions) -> Fitted:
        """Return the texts of a request, cut where they are too long and may be.

        Raises:
            InputTooLongError: One may not be cut, or is longer than the server takes.
        """
        found = fit(inputs, options, self.tokens, self.spec, server_keeps=self.keeps_limit)
        if found.counts is not None and self.limit is not None and self.limit < options.max_tokens:
            for index, count in enumerate(found.counts.tolist()):
                if count > self.limit:
                    raise self.too_long(index, count, self.limit)
        return found

    async def fitted_aside(self, inputs: Sequence[Rendered], options: RunOptions) -> Fitted:
        """`fitted` on a thread where it takes long: the loop is that of all servers."""
        if self.tokens is None or sum(len(item.words) for item in inputs) < _MANY_LETTERS:
            return self.fitted(inputs, options)

        def fitted() -> Fitted:
            with exiting.native():
                return self.fitted(inputs, options)

        return await asyncio.to_thread(fitted)

    def too_long(self, index: int, tokens: int | None = None, limit: int | None = None) -> EmbriefError:
        """Return the error for a text that the server does not take whole."""
        counted = self.tokens is not None
        limit = limit or self.limit
        return over_the_servers_limit(index, tokens, limit, self.spec, counted=counted, where=self.http.where)

    def check_read(self, read: int | None, fitted: Fitted, texts: Sequence[str]) -> None:
        """Refuse an answer to fewer tokens than were sent: some servers cut texts, and say so here alone.

        More are no fault, nor are as many as there are letters: that is what some count (Infinity 0.0.78, those of
        the texts without the white space at their edges).

        Args:
            read: How many tokens the server says that it read; `None`: it does not say.
            fitted: What was sent, counted.
            texts: The texts as they were sent.

        Raises:
            BackendError: It read fewer. Of several texts, the one that was cut is looked for.
        """
        if fitted.counts is None or read is None:
            return
        less = fitted.tokens - read
        # Special tokens, of which there may be two around a text, are not counted everywhere; and then of all texts.
        if less <= 0 or (less <= 2 * len(texts) and less % len(texts) == 0):
            return
        if read not in (sum(map(len, texts)), sum(len(text.strip()) for text in texts)):
            raise BackendError(
                f"{self.http.where} read {read} of {fitted.tokens} tokens: it cuts texts without saying so; raise its "
                "limits (of context and of batch), or lower max_tokens"
            )

    def refused_as_long(self, texts: int, tokens: int | None = None, limit: int | None = None) -> EmbriefError:
        """Return the error for a request that the server refuses because a text is too long: of one text, that text.

        Of several it is an error that is looked for in smaller requests.
        """
        return self.too_long(0, tokens, limit) if texts == 1 else BackendError(f"{self.http.where}: a text is too long")

    def crowded(self, words: Words, texts: int) -> Again | None:
        """Return the error for a llama-server that has no room for all that runs there, `None` for another."""
        if CROWDED not in words.raw:
            return None
        error = BackendError(f"{self.http.where} has no room for what runs there at once: {words}")
        # Once more, since others may have been in the way; then with fewer texts.
        return Again(error, tries=2) if texts > 1 else Again(error)

    async def aclose(self) -> None:
        """Let go of the connections."""
        await self.http.aclose()


class ServerEmbedder(ServerModel):
    """An embedding model on a server."""

    async def arun(self, inputs: Sequence[Rendered], options: RunOptions) -> Output:
        """Return the vectors of at most `batch_rows` texts."""
        found = await self.fitted_aside(inputs, options)
        texts = [item.head + body + item.tail for item, body in zip(inputs, found.bodies, strict=True)]
        answer = await self.ask(texts, found, options)
        large = len(texts) * getattr(self.spec, "dim", 0) > _MANY_VALUES
        read = partial(self.vectors, answer, len(texts))
        return Output.dense(await asyncio.to_thread(read) if large else read(), found.counts, found.truncated)

    @abstractmethod
    async def ask(self, texts: Sequence[str], fitted: Fitted, options: RunOptions) -> Any:
        """Send texts, and return the server's answer."""

    def vectors(self, answer: Any, count: int) -> NDArray[np.float32]:
        """Return the vectors of an answer: float32, (n, dim of the model)."""
        assert isinstance(self.spec, EmbeddingSpec)
        where = self.http.where
        items = in_order(items_of(answer, where), count, where)
        return vectors(items, self.spec.dim, where=where, model=self.spec.id)


class ServerReranker(ServerModel):
    """A reranker on a server."""

    renders_here = False
    """Whether the template is put around a pair on this side."""

    async def arun(self, inputs: Sequence[Rendered], options: RunOptions) -> Output:
        """Return the log-odds of at most `batch_rows` pairs: one request per query and instruction."""
        import numpy as np

        found = await self.fitted_aside(inputs, options)
        logits = np.empty(len(inputs), np.float64)
        for source, places in group_by_query(inputs):
            documents = [found.bodies[place] for place in places]
            share = found.tokens * len(places) // len(inputs)
            with placed(places):
                logits[places] = await self.ask(source, documents, share)
        return Output.scores(logits, found.counts, found.truncated)

    @abstractmethod
    async def ask(self, source: Source, documents: Sequence[str], tokens: int) -> NDArray[np.float64]:
        """Return the log-odds of one query's documents."""

    def around(self, source: Source, documents: Sequence[str]) -> tuple[str, list[str]]:
        """Return query and documents such that one behind the other they are the record's template, filled.

        For servers that put a pair together as it is.
        """
        assert isinstance(self.spec, RerankerSpec)
        around, _ = pair_template(source.query or "", self.spec, source.instruction)
        return around.head, [document + around.tail for document in documents]


def is_path(name: str) -> bool:
    """Return whether a server calls a model by a file or a folder, which says nothing about what it is."""
    return name.startswith(("/", ".", "~")) or "\\" in name or name[1:3] in (":/", ":\\")


# What names of files and copies have behind the model's own: formats, and numbers of bits.
_FORMATS = re.compile(
    r"(?:[-_.:@](?:gguf|onnx|mlx|awq|gptq|dwq|ud|fp8|fp16|bf16|f16|f32|int[48]|i?q\d\w*|\dbit|seq-cls|latest))*"
)


def names_it(name: str, wanted: str) -> bool:
    """Return whether a name, or a path, is that of a model, of a copy, or of its file in another format.

    A name that goes on otherwise is another model's, such as that of a fine-tune.
    """
    end, short = (text.lower().rpartition("/")[2] for text in (name, wanted))
    return end.startswith(short) and _FORMATS.fullmatch(end.removeprefix(short)) is not None


def is_on_hub(name: str) -> bool:
    """Return whether a name has the form of one on the hub."""
    return name.count("/") == 1 and not is_path(name)
