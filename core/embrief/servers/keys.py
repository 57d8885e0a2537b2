"""Keys of servers: where they may come from, and where they may go.

A key is never part of the options, which are shown, pickled and stored: those name a variable or a file.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from embrief.errors import ArgumentError, UnauthorizedError

if TYPE_CHECKING:
    from embrief.servers.address import Address

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:_API_KEY|_TOKEN|_KEY)")
PROVIDER_KEYS = {
    "api.openai.com": "OPENAI_API_KEY",
    "api.mistral.ai": "MISTRAL_API_KEY",
    "api.cohere.com": "COHERE_API_KEY",
    "api.cohere.ai": "COHERE_API_KEY",
    "api.jina.ai": "JINA_API_KEY",
    "router.huggingface.co": "HF_TOKEN",
}
"""The variables that providers tell their users to set, by the one host that each goes to."""
_MOST = 16384
"""Bytes of a file with a key: a file that is none is not read into memory."""


@dataclass(frozen=True)
class Key:
    """A key and what it is called. Its value shows in no repr, and no pickle holds it."""

    source: str
    """The variable's or the file's name, for messages."""
    value: str = field(repr=False)

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a key is not pickled; the name of its variable travels instead")

    def hide(self, text: str) -> str:
        """Return a text of a server's with the key blotted out."""
        return text.replace(self.value, "***") if self.value else text


def check_names(api_key_env: str | None, api_key_file: str | None, address: Address) -> None:
    """Refuse a place that a key may not come from, and an address that it may not go to. Reads nothing.

    Raises:
        ArgumentError: It is one.
    """
    if api_key_env is not None and _NAME.fullmatch(api_key_env) is None:
        raise ArgumentError(
            "api_key_env= is not the name of a variable that holds a key: such a name ends in _API_KEY, _TOKEN or "
            "_KEY. The value is not shown here, since it may be a key itself"
        )
    if api_key_env is not None and api_key_file is not None:
        raise ArgumentError(
            f"api_key_env={api_key_env!r} and api_key_file={api_key_file!r} both say where the key is; give one"
        )
    if (api_key_env or api_key_file) and address.scheme == "http" and not address.is_this_machine:
        raise ArgumentError(
            f"a key is never sent over http to another machine, and base_url={address.url!r} is one; use https, or a "
            "tunnel to this machine"
        )


def find_key(api_key_env: str | None, api_key_file: str | None, address: Address) -> Key | None:
    """Return the key for a server, `None` where there is none.

    Without a name, a provider's own variable counts, for the provider's own host alone.

    Raises:
        UnauthorizedError: The variable or the file that was named has none.
        ArgumentError: The address is one that no key goes to.
    """
    # Once more: an address may come from a variable, and options from another machine.
    check_names(api_key_env, api_key_file, address)
    if api_key_file is not None:
        return _clean(_read(api_key_file), f"the file {api_key_file}")
    if api_key_env is not None:
        value = os.environ.get(api_key_env)
        if value is None:
            raise UnauthorizedError(f"the variable {api_key_env} is not set, and api_key_env= names it; set it")
        return _clean(value, f"the variable {api_key_env}")
    default = PROVIDER_KEYS.get(address.host) if (address.scheme, address.port) == ("https", 443) else None
    if default is None or not os.environ.get(default):
        return None
    return _clean(os.environ[default], f"the variable {default}")


def _read(path: str) -> str:
    try:
        with Path(path).expanduser().open("rb") as file:
            return file.read(_MOST).decode("utf-8", "replace")
    except OSError as error:
        raise UnauthorizedError(f"api_key_file={path!r} cannot be read: {error.strerror or error}") from error


def _clean(value: str, source: str) -> Key:
    key = value.strip()
    if not key or not all("!" <= letter <= "~" for letter in key):
        what = "is empty" if not key else "holds what no key can hold (blanks, line breaks, letters beyond ASCII)"
        raise UnauthorizedError(f"{source} {what}; put the key alone into it")
    return Key(source, key)
