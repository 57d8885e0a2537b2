"""Which errors another member may make up for, and which are the same everywhere or must be seen."""

from __future__ import annotations

from embrief.errors import (
    ArgumentError,
    ArgumentTypeError,
    BackendError,
    BadAnswerError,
    ClosedError,
    EndpointError,
    GatedModelError,
    ItemFailedError,
    MissingDependencyError,
    ModelMismatchError,
    NonFiniteVectorError,
    NotEnoughSpaceError,
    OutOfMemoryError,
    RateLimitedError,
    UnauthorizedError,
    UnavailableError,
    UnsupportedVersionError,
    WeightsUnavailableError,
)

_NEVER = (
    ArgumentError,
    ArgumentTypeError,
    UnauthorizedError,
    EndpointError,
    ModelMismatchError,
    NonFiniteVectorError,
    BadAnswerError,
    ClosedError,
)
_ALWAYS = (
    UnavailableError,
    RateLimitedError,
    OutOfMemoryError,
    WeightsUnavailableError,
    GatedModelError,
    MissingDependencyError,
    NotEnoughSpaceError,
    UnsupportedVersionError,
)
_DEVICE = ("CUDA error", "CUDA driver", "MPS", "device-side assert", "NCCL", "out of memory")


def falls_through(error: BaseException) -> bool:
    """Return whether the next member may answer in the place of one that failed so.

    It may after what lies with the member: it cannot be loaded, its device or memory fails, it is not there, late or
    busy. It may not after what lies with the call (bad or too long input) or what somebody must see: a key that is
    refused, another model, NaN.
    """
    if isinstance(error, _ALWAYS):
        return True
    if isinstance(error, _NEVER):
        return False
    if isinstance(error, ItemFailedError):
        # One text's own fault, unless it is the device that is gone.
        return any(word in str(error) for word in _DEVICE)
    return isinstance(error, BackendError)
