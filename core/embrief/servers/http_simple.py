"""Services of one's own: a POST with texts, an answer with vectors in whatever form it has.

Seen in use: `POST /txt/embed {"input": ...}` answered with `embedding`, `POST /encode {"texts": [...]}` with
`embeddings`, and bare lists; and for pictures, in base64, `POST /img/embed {"input": ...}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from embrief.errors import ArgumentError, BadAnswerError, placed
from embrief.facts.specs import EmbeddingSpec
from embrief.runtimes.base import Output
from embrief.servers import own, pictures
from embrief.servers.answers import in_order, items_of, one_each, too_long, vectors
from embrief.servers.model import ServerEmbedder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from embrief.facts.prompts import Rendered
    from embrief.runtimes.base import LoadRequest, RunOptions
    from embrief.servers.counting import Fitted
    from embrief.servers.http import Words
    from embrief.servers.options import HttpSimple

_TOO_LARGE, _INVALID = 413, 422


class HttpSimpleEmbedder(ServerEmbedder):
    """A model behind one route."""

    def __init__(self, request: LoadRequest) -> None:
        """Ask nothing yet."""
        super().__init__(request)
        self.options: HttpSimple
        if self.options.one_by_one:
            self.batch_rows = 1
        self._names = [] if self.options.answer_field == "auto" else self.options.answer_field.split(".")

    def parts(self, inputs: Sequence[Rendered], options: RunOptions) -> list[range]:
        """Return the places of a call's inputs, request by request: pictures and texts have a route each.

        Raises:
            ArgumentTypeError: An input is not one text or one picture.
        """
        if not pictures.holds_pictures(inputs):
            return super().parts(inputs, options)
        pictures.refuse_mixed(inputs, self.http.where)
        return pictures.parts(inputs, self.batch_rows, self.spec, options)

    async def arun(self, inputs: Sequence[Rendered], options: RunOptions) -> Output:
        """Return the vectors of at most `batch_rows` inputs.

        A service that is sent pictures puts the prompts itself, before them and so before texts.
        """
        if self.options.image_endpoint is None:
            return await super().arun(inputs, options)
        import numpy as np

        assert isinstance(self.spec, EmbeddingSpec)
        found = np.empty((len(inputs), self.spec.dim), np.float32)
        texts = [place for place, item in enumerate(inputs) if not item.images]
        images = [place for place, item in enumerate(inputs) if item.images]
        if texts:
            fitted = await self.fitted_aside([inputs[place] for place in texts], options)
            with placed(texts):
                found[texts] = self.vectors(await self.ask(fitted.bodies, fitted, options), len(texts))
        if images:
            shown = [image for place in images for image in inputs[place].images]
            files = await pictures.encoded(shown, self.spec, options)
            with placed(images):
                found[images] = self.vectors(await self._asked(self.options.image_endpoint, files, 0), len(images))
        return Output.dense(found)

    async def ask(self, texts: Sequence[str], fitted: Fitted, options: RunOptions) -> Any:
        """Send texts. A service that needs the model's name gets the one that the options give."""
        answer = await self._asked(self.options.text_endpoint, texts, fitted.tokens)
        if self.options.image_endpoint is None:
            own.check_plain(answer, self.http.where)
        if own.has_cut(answer):
            raise self.refused_as_long(len(texts))
        return answer

    async def _asked(self, path: str, inputs: Sequence[str], tokens: int) -> Any:
        body: dict[str, Any] = {self.options.field_of(path): inputs[0] if self.options.one_by_one else list(inputs)}
        if self.options.model is not None:
            body["model"] = self.options.model
        return await self.http.post(
            path,
            body,
            tokens=tokens,
            explain=lambda status, found, words: self._explain(status, found, words, len(inputs)),
            texts=inputs,
        )

    def vectors(self, answer: Any, count: int) -> NDArray[np.float32]:
        """Return the vectors of an answer: float32, (n, dim of the model)."""
        assert isinstance(self.spec, EmbeddingSpec)
        where, names = self.http.where, list(self._names)
        while names and isinstance(answer, Mapping):
            answer = self._named(answer, names.pop(0))
        if names and isinstance(answer, list):
            # The rest of the names is inside each item, which may also say where it belongs.
            items = in_order(answer, count, where)
            for name in names:
                items = [self._named(item, name) for item in items]
        else:
            if self._names and not isinstance(answer, list):
                answer = [answer]
            items = in_order(one_each(items_of(answer, where), count, where), count, where)
        return vectors(items, self.spec.dim, where=where, model=self.spec.id)

    def _explain(self, status: int, body: Any, words: Words, texts: int) -> Exception | None:
        if (long := too_long(status, body, words)) is not None:
            return self.refused_as_long(texts, long.tokens, long.limit)
        if status == _TOO_LARGE:
            return self.refused_as_long(texts)
        # As FastAPI says what is wrong with a request.
        told = body.get("detail") if status == _INVALID and isinstance(body, Mapping) else None
        for item in told if isinstance(told, list) else ():
            kind, place = (item.get("type"), item.get("loc")) if isinstance(item, Mapping) else (None, None)
            name = place[-1] if isinstance(place, list) and place else None
            if kind == "missing" and isinstance(name, str):
                return ArgumentError(
                    f"{self.http.where} wants the field {name!r} and gets {self.options.request_field!r}; if that is "
                    f"where texts go, pass HttpSimple(field={name!r})"
                )
            if kind == "string_type" and not self.options.one_by_one:
                return ArgumentError(
                    f"{self.http.where} takes one text per request and no list; pass HttpSimple(one_by_one=True)"
                )
            if kind == "list_type" and self.options.one_by_one:
                return ArgumentError(f"{self.http.where} takes a list of texts; leave out HttpSimple(one_by_one=True)")
        return None

    def _named(self, answer: Any, name: str) -> Any:
        name = name.removesuffix("[]")
        if not isinstance(answer, Mapping) or name not in answer:
            has = sorted(answer)[:5] if isinstance(answer, Mapping) else type(answer).__name__
            raise BadAnswerError(
                f"{self.http.where} answers without {name!r}, which HttpSimple(answer_field="
                f"{self.options.answer_field!r}) names; it has {has}"
            )
        return answer[name]
