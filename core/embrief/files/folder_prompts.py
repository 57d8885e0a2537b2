"""The prompts that a model folder names: for which task and side each is, and which of them nothing uses."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from embrief.errors import warn
from embrief.facts.prompts import fill
from embrief.facts.specs import NO_PROMPT, EmbeddingPrompts, EmbeddingSpec, RerankerSpec, Task, Template

if TYPE_CHECKING:
    from embrief.facts.specs import ModelSpec
    from embrief.files.model_files import ModelFiles

QUERY_NAMES = ("query",)
DOCUMENT_NAMES = ("document", "passage", "corpus")
_PREFERRED = (*QUERY_NAMES, *DOCUMENT_NAMES)
_SIDED = re.compile(
    r"(?:(?P<task>.+?)(?:[-_.:/ ]|(?<=[a-z0-9])(?=[A-Z])))?(?P<side>(?i:query|queries|documents?|passages?|corpus))"
)


def embedding_prompts(files: ModelFiles, family: EmbeddingPrompts | None) -> EmbeddingPrompts:
    """Return the prompts in force: the folder's own beat the family's."""
    if files.prompts is None:
        return family or EmbeddingPrompts(
            tasks=(Task("retrieval", NO_PROMPT, NO_PROMPT, aliases=("query", "document")),)
        )
    own = {name: as_template(prompt, family) for name, prompt in files.prompts.items()}
    nothing = as_template("", family)
    default = files.default_prompt or ""
    fallback = own.get(default, nothing)
    plain = {_named(name)[1]: own[name] for name in sorted(own, key=_rank) if not _named(name)[0]}
    # A default whose name says a side is not for the other.
    query, document = (
        plain.get(side, fallback if _named(default)[1] in ("", side) else nothing) for side in ("query", "document")
    )
    aliases: tuple[str, ...] = ("query", "document")
    pairs = {task for task, side in map(_named, own) if task and side}
    if len(pairs) == 1 and fallback == nothing and not plain.keys() & {"query", "document"}:
        # One pair under longer names, such as search_query and search_document, is what they are for.
        longer = {_named(name)[1]: name for name in own if _named(name)[0] in pairs and _named(name)[1]}
        query, document = (own[longer[side]] if side in longer else nothing for side in ("query", "document"))
        aliases += tuple(longer.values())
    retrieval = Task("retrieval", query, document, aliases=aliases)
    others: dict[str, Task] = {}
    fits = family is not None and _fits(query, family)
    if family is not None:
        first = family.tasks[0]
        # Titles keep working as long as the folder's document prompt is the family's.
        retrieval = replace(
            first,
            query=query,
            document=document,
            titled=first.titled if document == first.document else None,
            aliases=tuple(dict.fromkeys((*first.aliases, *aliases))),
        )
        others = {task.name: task for task in family.tasks[1:]} if fits else {}
    for name, prompt in own.items():
        task, side = _named(name)
        if not task or {name, task} & {retrieval.name, *retrieval.aliases}:
            continue
        match = next((item for item in others.values() if {name, task} & {item.name, *item.aliases}), None)
        if side:
            match = match or Task(task, query, document)
            match = replace(match, aliases=(*match.aliases, name))
            others[match.name] = replace(match, query=prompt) if side == "query" else replace(match, document=prompt)
        elif match is None:
            others[name] = Task(name, prompt, prompt)
        elif match.query != prompt:
            symmetric = match.query == match.document
            others[match.name] = replace(match, query=prompt, document=prompt if symmetric else match.document)
    return EmbeddingPrompts(
        tasks=(retrieval, *others.values()),
        instructed=family.instructed if family and fits else None,
        default_instruction=_instruction(files, query, family) if family and fits else None,
        instruction_is_sentence=family.instruction_is_sentence if family else False,
    )


def as_template(prompt: str, family: EmbeddingPrompts | None) -> Template:
    """Return what a folder's prompt puts around a text.

    A prefix: sentence-transformers has nothing that stands behind a text. For models with a chat template it is what
    their system line says, to the letter, and an empty one leaves the template its own.
    """
    if family is None or not family.instruction_is_sentence or family.instructed is None:
        return Template(prompt)
    return fill(family.instructed, instruction=prompt) if prompt else family.tasks[0].document


def _instruction(files: ModelFiles, query: Template, family: EmbeddingPrompts) -> str | None:
    """Return the instruction in a query's prompt, `None` where it has none that is known."""
    if query == family.tasks[0].query:
        return family.default_instruction
    if not family.instruction_is_sentence:
        return None
    return next((prompt for prompt in (files.prompts or {}).values() if as_template(prompt, family) == query), None)


def _named(name: str) -> tuple[str, str]:
    """Return the task and the side that a prompt's name says; without a side, the name is the task."""
    found = _SIDED.fullmatch(name)
    if found is None:
        return name, ""
    return found["task"] or "", "query" if found["side"].lower().startswith("q") else "document"


def _rank(name: str) -> int:
    """Return a number that is highest for the name that sentence-transformers prefers for its side."""
    return -_PREFERRED.index(name) if name in _PREFERRED else -len(_PREFERRED)


def unused_prompts(files: ModelFiles, spec: ModelSpec) -> list[str]:
    """Return the names of the folder's prompts that nothing here uses on the side that their names say."""
    own = files.prompts or {}
    if isinstance(spec, RerankerSpec):
        return [name for name, prompt in own.items() if prompt not in ("", spec.default_instruction)]
    prompts = cast("EmbeddingSpec", spec).prompts
    return [name for name, prompt in own.items() if as_template(prompt, prompts).head not in _used(spec, name)]


def _used(spec: ModelSpec, name: str) -> tuple[str, ...]:
    """Return the prompts of an embedder that are in use under a name."""
    tasks = cast("EmbeddingSpec", spec).prompts.tasks
    whole, side = _named(name)
    task = next((task for task in tasks if name == task.name or name in task.aliases), None if whole else tasks[0])
    if task is None:
        return ()
    used = (task.query,) if side == "query" else (task.document,) if side else (task.query, task.document)
    return tuple(template.head for template in used)


def report_unused(files: ModelFiles, spec: ModelSpec) -> None:
    """Warn of prompts that nothing uses."""
    if unused := unused_prompts(files, spec):
        warn(
            f"{files.folder} has prompts under the names {unused}, which nothing here uses; info()['unused_prompts'] "
            "lists them. Name prompts 'query' and 'document' in config_sentence_transformers.json, or after a task and "
            "a side, such as 'legal_query', and choose it with task='legal'",
            UserWarning,
        )


def _fits(query: Template, family: EmbeddingPrompts) -> bool:
    """Return whether a folder's query prompt is of its family's kind: none, the family's, or with other words in it."""
    before, _, after = (family.instructed or NO_PROMPT).head.partition("{instruction}")
    return query == NO_PROMPT or (bool(before) and query.head.startswith(before) and query.head.endswith(after))
