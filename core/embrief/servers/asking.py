"""Questions to a server before a model on it is used: what kind it is, and which model it serves.

Each is asked once, where somebody named the server and left that out; nothing is followed or repeated.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, NoReturn

from embrief.errors import ArgumentError, UnauthorizedError, UnavailableError
from embrief.servers.address import parse_address
from embrief.servers.keys import Key, find_key
from embrief.servers.options import Ollama, OpenAI, RerankHttp, ServerOptions, Tei
from embrief.servers.own import models_of

_SECONDS = 5.0
"""For one question: to reach the server, and for its whole answer."""
_MOST = 1 << 20
"""Bytes of an answer that are read."""
_SHOWN = 10
"""Names of models that a message lists."""


def served_model(options: ServerOptions) -> str:
    """Return the name of the one model that a server has.

    Args:
        options: The server: TEI tells its model; servers like OpenAI's are believed where they list exactly one.

    Raises:
        ArgumentError: The server has several, or none, or does not tell; the message lists what it has.
        UnavailableError: It does not answer.
        UnauthorizedError: It refuses the key.
    """
    address = options.address
    key = find_key(options.api_key_env, options.api_key_file, address)
    if isinstance(options, Tei):
        name = _field(_get(f"{address.url}/info", key), "model_id")
        if isinstance(name, str) and name:
            return name
        raise ArgumentError(f"{address.url}/info does not say which model it serves; {_add(options)}")
    if isinstance(options, Ollama):
        names = _names(_get(f"{address.url}/api/tags", key), "models", "name")
        raise ArgumentError(f"Ollama at {address.url} serves any model that it has ({_listed(names)}); {_add(options)}")
    if isinstance(options, (OpenAI, RerankHttp)):
        answer = _get(f"{address.url}/models", key)
        own = models_of(answer, "reranker" if isinstance(options, RerankHttp) else "embedding")
        names = _names(answer, "data", "id") if own is None else own
        if len(names) == 1:
            return names[0]
        raise ArgumentError(f"{address.url} does not serve exactly one model ({_listed(names)}); {_add(options)}")
    raise ArgumentError(f"a {type(options).__name__} server cannot be asked for its model; {_add(options)}")


# What kind of server is at an address does not change while a program runs; failures are asked again.
@lru_cache(maxsize=64)
def server_kind(url: str) -> type[ServerOptions]:
    """Return the options of the kind of server that is at an address: TEI's, Ollama's or OpenAI's.

    Raises:
        ArgumentError: It is none of them.
        UnavailableError: It does not answer.
    """
    address = Tei(base_url=url).address
    for path, field, kind in (("/info", "model_id", Tei), ("/api/tags", "models", Ollama), ("/models", "data", OpenAI)):
        try:
            if _field(_get(f"{address.url}{path}", None), field) is not None:
                return kind
        except (ArgumentError, UnauthorizedError):
            continue
    raise ArgumentError(
        f"{address.url} is neither TEI nor Ollama nor a server like OpenAI's; say what it is by writing "
        f"tei+{address.url}, ollama+{address.url} or openai+{address.url} (that one with /v1 at its end, mostly)"
    )


def _add(options: ServerOptions) -> str:
    return f"name it, with '#' behind the address in a reference, or as {type(options).__name__}(model=...)"


def _listed(names: list[str]) -> str:
    if not names:
        return "it lists none"
    return "it has " + ", ".join(map(repr, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")


def _field(answer: object, name: str) -> object:
    return answer.get(name) if isinstance(answer, dict) else None


def _names(answer: object, field: str, name: str) -> list[str]:
    items = _field(answer, field)
    found = [_field(item, name) for item in items] if isinstance(items, list) else []
    return [item[:200] for item in found if isinstance(item, str) and item.isprintable()]


def _get(url: str, key: Key | None) -> Any:
    # Inside the function: they bring `email` and `ssl`, and most programs ask nothing.
    import http.client
    import urllib.error
    import urllib.request

    from embrief.servers.in_time import opener

    # A proxy that is set for this user has no part in what stays on this machine.
    here = parse_address(url).is_this_machine
    proxies = urllib.request.ProxyHandler({}) if here else urllib.request.ProxyHandler()
    headers = {"Accept": "application/json", "User-Agent": "embrief"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key.value}"
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - http or https, by `parse_address`
    try:
        with opener(_SECONDS, proxies).open(request, timeout=_SECONDS) as answer:
            return json.loads(answer.read(_MOST))
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (401, 403):
            raise UnauthorizedError(f"{url} refuses the key (HTTP {error.code}); name its variable") from error
        raise ArgumentError(f"{url} answers HTTP {error.code}, so it does not say which model it serves") from error
    except OSError as error:
        _unavailable(url, error)
    except http.client.HTTPException as error:
        # What came instead is not repeated: it may be anything.
        raise UnavailableError(
            f"{url} does not answer in HTTP ({type(error).__name__}); correct the address, or start the server"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ArgumentError(f"{url} answers with something that is no JSON") from error


def _unavailable(url: str, error: OSError) -> NoReturn:
    reason = getattr(error, "reason", error)
    raise UnavailableError(f"{url} does not answer ({reason}); start the server, or name its model") from error
