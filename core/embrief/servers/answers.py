"""What servers answer with: vectors and scores, in any of the forms that are in use, put in order and checked."""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embrief.errors import BadAnswerError, ItemFailedError, ModelMismatchError, NonFiniteVectorError
from embrief.servers.own import TOO_LONG

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from embrief.servers.http import Words

_LISTS = ("data", "embeddings", "vectors", "results")
_VECTOR = ("embedding", "vector", "values")
_SCORE = ("relevance_score", "score")


def whole(value: Any) -> int | None:
    """Return a whole number above 0 that a server says, `None` for anything else."""
    return value if type(value) is int and value > 0 else None


def items_of(answer: Any, where: str, names: Sequence[str] = _LISTS) -> list[Any]:
    """Return the list that an answer is, or holds.

    Raises:
        BadAnswerError: There is none.
    """
    if isinstance(answer, list):
        return answer
    if isinstance(answer, Mapping):
        for name in names:
            if isinstance(answer.get(name), list):
                return list(answer[name])
        # A service that takes one text answers with one vector.
        for name in _VECTOR:
            if name in answer and isinstance(answer[name], (list, str, type(None))):
                return [answer[name]]
    found = sorted(answer)[:5] if isinstance(answer, Mapping) else type(answer).__name__
    raise BadAnswerError(f"{where} answers without {', '.join(map(repr, names))}; it has {found}")


def one_each(items: Sequence[Any], count: int, where: str) -> list[Any]:
    """Return one item per text of a list that may be put together in other ways.

    That is one vector by itself for one text, or all vectors under a name that says one (`embedding`).

    Raises:
        BadAnswerError: There are several vectors for one text.
    """
    if count == 1 and items and set(map(type, items)) <= {float, int, type(None)} and list(items) != [None]:
        return [list(items)]
    if len(items) == 1 and isinstance(items[0], list) and (not items[0] or isinstance(items[0][0], (list, str))):
        items = items[0] if count > 1 or len(items[0]) == 1 else items
    if count == 1 and len(items) > 1 and all(isinstance(item, list) for item in items):
        raise _not_pooled(len(items), 0, where)
    return list(items)


def in_order(items: Sequence[Any], count: int, where: str) -> list[Any]:
    """Return items in the order of what was asked: by their `index` if they have one.

    Raises:
        BadAnswerError: There are too few or too many, or one place twice.
    """
    if len(items) != count:
        raise BadAnswerError(f"{where} answers with {len(items)} items for {count} texts")
    indexes = [item.get("index") if isinstance(item, Mapping) else None for item in items]
    if all(index is None for index in indexes):
        return list(items)
    # A flag is no index, though Python counts with it.
    found = {index: item for index, item in zip(indexes, items, strict=True) if type(index) is int}
    if found.keys() != set(range(count)):
        raise BadAnswerError(f"{where} answers with items whose index is missing, twice or out of range")
    return [found[index] for index in range(count)]


def vectors(items: Sequence[Any], width: int, *, where: str, model: str) -> NDArray[np.float32]:
    """Return the vectors of items that are in order.

    Args:
        items: Each is a list of numbers, a base64 text of little-endian float32, or a mapping that holds one of these.
        width: Values per vector of the model.
        where: The server's address.
        model: The model's id.

    Returns:
        float32, (n, width). Infinity and NaN stay what they are.

    Raises:
        BadAnswerError: An item is no vector.
        ModelMismatchError: Vectors have another width.
        ItemFailedError: A vector is all zeros.
        NonFiniteVectorError: A value, or a whole vector, is null.
    """
    import numpy as np

    found = np.empty((len(items), width), np.float32)
    for index, item in enumerate(items):
        values = _values(item)
        if isinstance(values, str):
            row = _decoded(values, index, where)
        elif values is None:
            raise _null(index, where)
        elif isinstance(values, list):
            if len(values) == 1 and isinstance(values[0], list):
                # llama-server's own routes wrap each vector once more.
                values = values[0]
            row = _row(values, index, where)
        else:
            raise BadAnswerError(f"{where} answers with a {type(values).__name__} where vector {index} belongs")
        if not row.size:
            raise BadAnswerError(f"{where} answers with an empty vector for text {index}")
        if row.shape != (width,):
            raise ModelMismatchError(
                f"{where} gives vectors of {row.size} values, and {model} has {width}: it serves another model, or a "
                "shortened one; ask it for the full width, or name the model that it serves"
            )
        if not row.any():
            raise ItemFailedError(
                f"{where} answers with a vector of zeros for the text at index {index}, which has no direction",
                index=index,
            )
        found[index] = row
    return found


def _values(item: Any) -> Any:
    if not isinstance(item, Mapping):
        return item
    return next((item[name] for name in _VECTOR if name in item), item)


def _row(values: list[Any], index: int, where: str) -> NDArray[np.float32]:
    import numpy as np

    # Not numpy's own idea of what a number is: it reads texts and flags as numbers.
    kinds = set(map(type, values))
    if kinds <= {float, int}:
        try:
            # What float32 cannot hold becomes infinite, and is refused as such.
            with np.errstate(over="ignore"):
                return np.array(values, np.float64).astype(np.float32)
        except OverflowError:
            return np.full(len(values), np.inf, np.float32)
    if kinds <= {float, int, type(None)}:
        raise _null(index, where)
    if kinds == {list}:
        raise _not_pooled(len(values), index, where)
    raise BadAnswerError(f"{where} answers with values that are no numbers, for text {index}")


def _not_pooled(count: int, index: int, where: str) -> BadAnswerError:
    return BadAnswerError(
        f"{where} answers with {count} vectors for text {index}, one per token: it pools nothing; start it with the "
        "model's pooling"
    )


def _decoded(text: str, index: int, where: str) -> NDArray[np.float32]:
    import numpy as np

    try:
        data = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise BadAnswerError(f"{where} answers with a text that is no base64 where vector {index} belongs") from error
    if len(data) % 4:
        raise BadAnswerError(f"{where} answers with {len(data)} bytes for vector {index}, which are no float32 values")
    return np.frombuffer(data, "<f4")


def _null(index: int, where: str) -> NonFiniteVectorError:
    return NonFiniteVectorError(
        f"{where} answers with null values in the vector of the text at index {index}, as servers do for NaN; run the "
        "model in float32 or bfloat16 there",
        index=index,
    )


def scores(answer: Any, count: int, where: str) -> NDArray[np.float64]:
    """Return the scores of a rerank answer, in the order of the documents.

    Reads a list, or one named `results` or `data`, of items with `index` and `relevance_score` or `score`.

    Returns:
        float64, (n,), in the server's own scale.

    Raises:
        BadAnswerError: A document has no score, or two.
        NonFiniteVectorError: A score is null or not finite.
    """
    import numpy as np

    items = in_order(items_of(answer, where, ("results", "data", "scores")), count, where)
    found = np.empty(count, np.float64)
    for index, item in enumerate(items):
        value = item
        if isinstance(item, Mapping):
            value = next((item[name] for name in _SCORE if name in item), "")
        if value is None or (type(value) is float and not math.isfinite(value)):
            raise NonFiniteVectorError(
                f"{where} answers without a finite score for the text at index {index}; run the model in float32 or "
                "bfloat16 there",
                index=index,
            )
        if type(value) not in (int, float) or abs(value) > 1e30:
            raise BadAnswerError(f"{where} answers without a score for text {index}")
        found[index] = value
    return found


def log_odds(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the log-odds of probabilities, those of 0 and 1 as of 1e-7 and its complement."""
    import numpy as np

    clipped = np.clip(probabilities, 1e-7, 1 - 1e-7)
    logits: NDArray[np.float64] = np.log(clipped) - np.log1p(-clipped)
    return logits


OTHER_KIND = "ModelNotDeployedError"
"""Infinity's word for a model that does not do what it is asked: a reranker that is to embed."""
CROWDED = "Context size has been exceeded"
"""llama-server's slots share one context: texts that fit one by one may not fit together."""
_CONTEXT = "exceed_context_size_error"
_LONG = re.compile(
    r"context (?:length|size)|context_size|too large to process|input (?:length|is too long)|max_model_len|"
    r"reduce (?:your prompt|the length)",
    re.IGNORECASE,
)
# "This model's maximum context length is 8192 tokens, however you requested 9000 tokens" (OpenAI, vLLM),
# "input (574 tokens) is too large to process ... (current batch size: 512)" (llama-server).
_LIMIT = re.compile(r"(?:context length is|batch size:|context size \() ?(\d+)")
_LENGTH = re.compile(r"(?:requested|input \(|request \() ?(\d+)(?: input)? tokens")


@dataclass(frozen=True, slots=True)
class TooLong:
    """What a server says of a text that it does not take whole."""

    tokens: int | None
    limit: int | None


def too_long(status: int, body: Any, words: Words) -> TooLong | None:
    """Return whether a text was too long for a server of OpenAI's kind, and what it says of that.

    Args:
        status: Of its answer.
        body: The answer.
        words: Its message.
    """
    error = body.get("error") if isinstance(body, dict) else None
    own = error if isinstance(error, dict) else body
    if isinstance(own, dict) and own.get("code") == TOO_LONG:
        return TooLong(whole(own.get("tokens")), whole(own.get("limit")))
    context = isinstance(error, dict) and error.get("type") == _CONTEXT
    said = status in (400, 413, 422, 500) and CROWDED not in words.raw and _LONG.search(words.raw)
    if not context and not said:
        return None
    length, limit = _LENGTH.search(words.raw), _LIMIT.search(words.raw)
    # llama-server refuses a text that fills its context.
    takes = int(limit[1]) - context if limit else None
    return TooLong(int(length[1]) if length else None, takes)
