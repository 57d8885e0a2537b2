"""What a request says of its texts beside the texts: role, instruction, task. In all the words that clients use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from embrief.server.failures import refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from embrief.facades.embedder import Embedder
    from embrief.facts.specs import Role, Truncate
    from embrief.server.models import Served

Said = Literal["query", "document", "plain"]
"""What a request may say of its texts: which side of the search they are on, or that they have their prompts."""
ROLE_WORDS: Mapping[str, Said] = {
    "query": "query",
    "search_query": "query",
    "document": "document",
    "passage": "document",
    "search_document": "document",
    # Jina's.
    "retrieval.query": "query",
    "retrieval.passage": "document",
    "plain": "plain",
}
"""Words for it, in `input_type`, `prompt_name` and `task`."""
_LONGEST_TASK = 200
"""Characters of a task's name: one that is not known is repeated in the error, and a text in its place is not."""


@dataclass(frozen=True, slots=True)
class Ask:
    """How texts are to be embedded."""

    said: Said
    instruction: str | None = None
    task: str | None = None
    dim: int | None = None
    truncate: Truncate | None = None
    """`None`: as the model was set up."""
    max_tokens: int | None = None
    """Fewer tokens per text than the model was set up for."""
    normalize: bool | None = None
    """`None`: as the model was set up."""
    other_spaces: bool = False
    """Whether an answer of another space is better than none; such an answer is marked."""

    @property
    def role(self) -> Role:
        """Return the role as the models know it."""
        return "document" if self.said == "document" else "query"


def asked(
    served: Served[Embedder],
    default: Said,
    *,
    name_role: Said | None = None,
    input_type: str | None = None,
    prompt_name: str | None = None,
    instruction: str | None = None,
    dim: int | None = None,
    truncate: bool | None = None,
    max_tokens: int | None = None,
    normalize: bool | None = None,
    other_spaces: bool = False,
) -> Ask:
    """Return what a request asks for.

    Args:
        served: The model.
        default: What texts are where nothing says it.
        name_role: What the model's name says, as in `NAME:query`.
        input_type: One of `ROLE_WORDS`, or a task of the model.
        prompt_name: The same: clients have one of both.
        instruction: What queries are for. Said without a role, the texts are queries: documents have no instruction.
        dim: Values per vector.
        truncate: Whether a text that is too long is cut. `None`: as the model was set up.
        max_tokens: How many tokens a text may have; more than the model was set up for are not given.
        normalize: Whether vectors get unit length. `None`: as the model was set up.
        other_spaces: Whether an answer of another space is better than none.

    Raises:
        Refused: Two of them contradict each other.
        ArgumentError: The model has no such task.
    """
    roles: dict[str, Said] = {} if name_role is None else {"model": name_role}
    tasks: dict[str, str] = {}
    for param, word in (("input_type", input_type), ("prompt_name", prompt_name)):
        if word is None:
            continue
        if word in ROLE_WORDS:
            roles[param] = ROLE_WORDS[word]
        elif len(word) > _LONGEST_TASK:
            raise refused(400, "invalid_request", f"no task has a name of {len(word)} characters", param=param)
        else:
            tasks[param] = word
    if len(set(roles.values())) > 1:
        told = " and ".join(f"{param} says {role}" for param, role in roles.items())
        raise refused(400, "invalid_request", f"{told}; a request has one role", param=next(iter(roles)))
    if len(set(tasks.values())) > 1:
        raise refused(
            400, "invalid_request", "input_type and prompt_name name two tasks; give one", param="prompt_name"
        )
    said: Said = next(iter(roles.values()), "query" if instruction else default)
    if said == "plain":
        if instruction or tasks:
            told = "plain texts have their prompts already, so an instruction or a task would do nothing; leave it out"
            raise refused(400, "invalid_request", told)
        # No prompt at all.
        instruction = ""
    elif said == "document":
        if instruction:
            told = "an instruction is for queries; documents are embedded once for all instructions; leave it out"
            raise refused(400, "invalid_request", told, param="instruction")
        instruction = None
    if max_tokens is not None and max_tokens >= served.facade.max_tokens:
        max_tokens = None
    return Ask(
        said,
        instruction,
        next(iter(tasks.values()), None),
        dim,
        _cut(served, truncate),
        max_tokens,
        None if normalize == served.facade.settings.normalize else normalize,
        other_spaces,
    )


def _cut(served: Served[Embedder], truncate: bool | None) -> Truncate | None:
    own = served.facade.settings.truncate
    if truncate is None:
        # The answer says which texts were cut; a warning in the server's own process reaches nobody.
        return "silent" if own == "warn" else None
    return "silent" if truncate else "error"
