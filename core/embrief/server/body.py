"""JSON bodies, read strictly: what two readers would read differently is refused, and nothing in it is a crash."""

from __future__ import annotations

import json
from typing import Any, Never

from embrief.server.failures import Refused, refused


def read(data: bytes) -> Any:
    """Return a request's JSON.

    Raises:
        Refused: It is no JSON, is nested too deep, has a key twice, or holds a number that JSON does not have.
    """
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_no_number, object_pairs_hook=_object)
    except Refused:
        raise
    except UnicodeDecodeError as error:
        raise refused(400, "invalid_json", f"the body is not UTF-8 (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise refused(400, "invalid_json", f"the body is no JSON: {error.msg} (character {error.pos})") from None
    except RecursionError:
        raise refused(400, "invalid_json", "the body is nested too deep") from None
    except ValueError:
        # More digits than Python reads.
        raise refused(400, "invalid_json", "the body holds a number with too many digits") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise refused(400, "invalid_json", "an object in the body has a key twice")
    return found


def _no_number(name: str) -> Never:
    raise refused(400, "invalid_json", f"{name} is no number in JSON")
