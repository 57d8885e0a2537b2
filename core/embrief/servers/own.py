"""Servers of embrief itself (`embrief serve`), behind whichever of their routes they are asked.

They put prompts around texts, and so does this side: they are asked for a model by `NAME:plain`, which is their word
for texts that have their prompts. A name with another role would put a second prompt before the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from embrief.errors import ModelMismatchError
from embrief.facts.specs import EmbeddingSpec

if TYPE_CHECKING:
    from embrief.facts.specs import ModelSpec

OWNER = "embrief"
"""What such servers say in `owned_by`."""
TOO_LONG = "input_too_long"
"""Their code for a text that is too long."""
_PLAIN, _OTHERS = ":plain", (":query", ":document")


def is_own(facts: Any) -> bool:
    """Return whether a server's answer says that it is one of embrief."""
    return isinstance(facts, Mapping) and facts.get("owned_by") == OWNER


UNCUT: Mapping[str, Any] = {"truncate": False}
"""What requests say besides: a text that is too long is cut here or nowhere."""


def models_of(answer: Any, kind: str) -> list[str] | None:
    """Return the ids of a server's models of a kind, from its list of models; `None`: it is another's server."""
    rows = answer.get("data") if isinstance(answer, Mapping) else None
    if not isinstance(rows, list) or not rows or not all(map(is_own, rows)):
        return None
    return [str(row.get("model_id")) for row in rows if row.get("kind") == kind and "role" not in row]


def name_for(name: str, where: str) -> str:
    """Return what to ask an embedding model by, so that the server puts no prompt before texts that have one.

    Args:
        name: What it is called there, perhaps with a role behind it.
        where: The server's address.

    Raises:
        ModelMismatchError: The name says that the server is to put a prompt there.
    """
    if name.endswith(_OTHERS):
        plain = name.rpartition(":")[0]
        raise ModelMismatchError(
            f"{where} would put a prompt before texts for {name!r}, and they have theirs already: name it {plain!r}"
        )
    return name if name.endswith(_PLAIN) else name + _PLAIN


def row_for(rows: Sequence[Any], spec: ModelSpec, named: str | None, name: str, where: str) -> dict[str, Any]:
    """Return the row of a model in a list of such a server's; its `name` is what to ask for.

    Args:
        rows: Each has `id` or `name`, `kind`, `model_id`, and perhaps `role`.
        spec: The model that is wanted.
        named: What the user says that it is called there, perhaps with a role; `None`: nothing.
        name: What it is called by default.
        where: The server's address.

    Raises:
        ModelMismatchError: It is not there, or another model has its name.
    """
    embeds = isinstance(spec, EmbeddingSpec)
    kind = "embedding" if embeds else "reranker"
    wanted = named or name
    if embeds:
        wanted = name_for(wanted, where).removesuffix(_PLAIN)
    found = {}
    for row in rows:
        served = row.get("id", row.get("name")) if isinstance(row, Mapping) else None
        if isinstance(served, str) and row.get("kind") == kind and "role" not in row:
            found[served] = dict(row)
    chosen = wanted if wanted in found else None
    # What asked a server for its one model got its id.
    if chosen is None and (named is None or wanted == spec.id):
        chosen = next((served for served, row in found.items() if row.get("model_id") == spec.id), None)
    if chosen is None:
        has = ", ".join(map(repr, found)) or "none"
        raise ModelMismatchError(
            f"{where} serves no {kind} model {wanted!r}; it has {has}: name the one that is {spec.id} as model="
        )
    told = found[chosen].get("model_id", spec.id)
    if told != spec.id:
        raise ModelMismatchError(f"{where} calls {told} {chosen!r}, and {spec.id} is wanted")
    return {**found[chosen], "name": chosen + _PLAIN if embeds else chosen}


def takes_images(row: Mapping[str, Any]) -> bool:
    """Return whether such a server's row of a model says that it takes pictures."""
    told = row.get("modalities")
    return isinstance(told, list) and "image" in told


def name_as(name: str, role: str) -> str:
    """Return what to ask a model by whose prompts are put there: the role stands in the place of plain."""
    return f"{name.removesuffix(_PLAIN)}:{role}"


def check_plain(answer: Any, where: str) -> None:
    """Refuse the answer of such a server that put a prompt before texts that had one.

    For routes that have to be asked without knowing what is behind them.

    Raises:
        ModelMismatchError: It did.
    """
    if not isinstance(answer, Mapping) or "space" not in answer or answer.get("role") not in ("query", "document"):
        return
    name = str(answer.get("model")).rpartition(":")[0] or answer.get("model")
    raise ModelMismatchError(
        f"{where} put the prompt of a {answer['role']} before texts that have theirs already: pass "
        f"model='{name}{_PLAIN}', its name there with the role"
    )


def has_cut(answer: Any) -> bool:
    """Return whether such a server says of one of the texts that it lost its end."""
    told = answer.get("truncated") if isinstance(answer, Mapping) and "space" in answer else None
    return isinstance(told, list) and True in told
