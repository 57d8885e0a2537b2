"""What went wrong with a request, and its status: one table for all dialects, each of which says it in its own form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from embrief.errors import (
    ArgumentError,
    ArgumentTypeError,
    BadAnswerError,
    ClosedError,
    DegradedAnswerError,
    EmbriefError,
    EndpointError,
    GatedModelError,
    IndexedError,
    InputTooLongError,
    ItemFailedError,
    MissingDependencyError,
    ModelMismatchError,
    NonFiniteVectorError,
    NotEnoughSpaceError,
    OutOfMemoryError,
    RateLimitedError,
    RuntimeFileError,
    RuntimeMemoryError,
    ServerError,
    SpaceMismatchError,
    UnavailableError,
    UnknownModelError,
    UnsupportedVersionError,
    WeightsUnavailableError,
    WrongKindError,
)
from embrief.system.log import logger

if TYPE_CHECKING:
    from collections.abc import Sequence

RETRY_AFTER = 5
"""Seconds after which a client may try again where nobody knows better."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One failure, before a dialect has given it its form."""

    status: int
    code: str
    """What programs tell failures apart by; it does not change from release to release."""
    message: str
    """For people. It holds no text that was to be embedded."""
    index: int | None = None
    """Position of the item at fault in the request's list."""
    param: str | None = None
    """The field at fault."""
    headers: Mapping[str, str] | None = None
    tokens: int | None = None
    """Of a text that is too long: how many it has."""
    limit: int | None = None
    """Of a text that is too long: how many it may have."""

    def told(self) -> dict[str, Any]:
        """Return what programs read beside the message, without what is not known."""
        found = {"code": self.code, "param": self.param, "index": self.index}
        found |= {"tokens": self.tokens, "limit": self.limit}
        return {name: value for name, value in found.items() if value is not None}


class Refused(Exception):
    """A request that is not carried out, for a reason of the server's own."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def refused(
    status: int,
    code: str,
    message: str,
    *,
    param: str | None = None,
    index: int | None = None,
    retry: float | None = None,
) -> Refused:
    """Return the error of a request that is not carried out.

    Args:
        status: HTTP status.
        code: What programs tell it by.
        message: What is wrong, the value, the remedy.
        param: The field at fault.
        index: The item at fault.
        retry: Seconds after which to try again.
    """
    headers = None if retry is None else {"retry-after": str(max(math.ceil(retry), 1))}
    return Refused(Problem(status, code, message, index, param, headers))


_STATUS: tuple[tuple[type[Exception], int, str], ...] = (
    # The first that fits counts: special ones stand before general ones.
    (InputTooLongError, 400, "input_too_long"),
    (OutOfMemoryError, 413, "out_of_memory"),
    (WrongKindError, 400, "wrong_kind_of_model"),
    (UnknownModelError, 404, "model_not_found"),
    (ArgumentError, 400, "invalid_request"),
    (ArgumentTypeError, 400, "invalid_request"),
    (NonFiniteVectorError, 500, "non_finite"),
    (ItemFailedError, 500, "item_failed"),
    (BadAnswerError, 502, "bad_answer"),
    # The model is not there for anybody now.
    (RateLimitedError, 503, "model_unavailable"),
    (UnavailableError, 503, "model_unavailable"),
    (DegradedAnswerError, 503, "model_unavailable"),
    (EndpointError, 503, "model_unavailable"),
    (ServerError, 503, "model_unavailable"),
    (WeightsUnavailableError, 503, "model_unavailable"),
    (GatedModelError, 503, "model_unavailable"),
    (NotEnoughSpaceError, 503, "model_unavailable"),
    (MissingDependencyError, 503, "model_unavailable"),
    (UnsupportedVersionError, 503, "model_unavailable"),
    (ModelMismatchError, 503, "model_unavailable"),
    (SpaceMismatchError, 503, "model_unavailable"),
    (RuntimeFileError, 503, "model_unavailable"),
    (RuntimeMemoryError, 503, "model_unavailable"),
    (ClosedError, 503, "model_unavailable"),
    (EmbriefError, 500, "model_failed"),
)
_NAMES = {
    400: "invalid_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid_request",
    429: "too_many_requests",
    503: "unavailable",
}


def problem_of(error: Exception, route: str) -> Problem:
    """Return what an exception means for the caller.

    Args:
        error: What was raised.
        route: The route's path, for the log. Nothing of the request is logged.
    """
    if isinstance(error, Refused):
        return error.problem
    if isinstance(error, RequestValidationError):
        return _of_validation(error.errors())
    if isinstance(error, HTTPException):
        code = _NAMES.get(error.status_code, "error")
        return Problem(error.status_code, code, str(error.detail), headers=error.headers)
    found = next(((status, code) for kind, status, code in _STATUS if isinstance(error, kind)), None)
    if found is None:
        # Not its message, which may hold a text.
        logger.error("%s failed: %s", route, type(error).__name__)
        return Problem(500, "internal_error", f"the server failed ({type(error).__name__}); it is logged there")
    status, code = found
    index = error.index if isinstance(error, IndexedError) else None
    problem = Problem(status, code, _told(error, status), index)
    if isinstance(error, InputTooLongError):
        problem = replace(problem, tokens=error.tokens, limit=error.limit)
    if status >= 500:
        logger.warning("%s answers %d: %s", route, status, type(error).__name__)
    if status == 503:
        after = error.retry_after if isinstance(error, RateLimitedError) else None
        wait = RETRY_AFTER if after is None else max(math.ceil(after), 1)
        return replace(problem, headers={"retry-after": str(wait)})
    return problem


def _told(error: Exception, status: int) -> str:
    """Return what the caller may read: of what is amiss with the server itself, its operator reads more."""
    if status >= 500 and isinstance(error, IndexedError) and error.index is not None:
        # Not the runtime's own words, which may hold the text.
        return f"the model failed on the item at index {error.index} ({type(error).__name__}); leave it out"
    if status >= 500:
        return f"the model cannot answer now ({type(error).__name__}); the server's operator sees why with /readyz"
    return str(error)


def _of_validation(errors: Sequence[Any]) -> Problem:
    """Return the first thing that is wrong with a body. Never with the value, which may be a text."""
    first = errors[0]
    cause = first.get("ctx", {}).get("error")
    place = [part for part in first["loc"] if part not in ("body", "query", "path", "header")]
    param = str(place[0]) if place and isinstance(place[0], str) else None
    if isinstance(cause, EmbriefError):
        index = cause.index if isinstance(cause, IndexedError) else None
        return Problem(400, "invalid_request", str(cause), index, param)
    index = next((part for part in place[1:] if isinstance(part, int)), None)
    told = str(first["msg"]).removeprefix("Value error, ")
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")
    return Problem(400, "invalid_request", f"{where or 'the body'}: {told}", index, param)
