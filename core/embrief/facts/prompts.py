"""The bytes that reach the tokenizer.

Nothing else in the library formats a text. Slots are filled by literal replacement in the template only, so that
braces, newlines, blanks and any Unicode of the caller's pass unaltered. `None` means "not given", `""` means "none".
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embrief.errors import ArgumentError

if TYPE_CHECKING:
    from embrief.facts.specs import EmbeddingPrompts, RerankPrompt, Task


@dataclass(frozen=True, slots=True)
class PromptChoice:
    """What one level (a call, or a constructor) asks for. An instruction decides queries, a task documents too."""

    instruction: str | None = None
    task: str | None = None

    @property
    def given(self) -> bool:
        """Return whether this level asks for anything."""
        return self.instruction is not None or self.task is not None


def find_task(prompts: EmbeddingPrompts, name: str, *, model: str) -> Task:
    """Return the task of this name or alias.

    Raises:
        ArgumentError: The model has no such task; the message lists those it has.
    """
    for task in prompts.tasks:
        if name == task.name or name in task.aliases:
            return task
    names = [task.name for task in prompts.tasks]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    remedy = " or say it in your own words with instruction=" if prompts.instructed else ""
    raise ArgumentError(f"{model} has no task {name!r}; use one of {', '.join(names)}{remedy}{hint}")


def check_choice(prompts: EmbeddingPrompts, choice: PromptChoice, *, model: str) -> None:
    """Refuse a choice that the model cannot follow.

    Raises:
        ArgumentError: The task is unknown, or the model has no place for an instruction.
    """
    if choice.task is not None:
        find_task(prompts, choice.task, model=model)
    if choice.instruction and prompts.instructed is None:
        raise ArgumentError(
            f"{model} has no place for instruction={choice.instruction!r}: it was not trained with instructions, or "
            "its folder has prompts of its own kind; leave it out, or use a model that follows instructions such as "
            "Qwen/Qwen3-Embedding-0.6B"
        )


def active_task(prompts: EmbeddingPrompts, call: PromptChoice, default: PromptChoice, *, model: str) -> Task:
    """Return the task that applies: the call's, else the constructor's, else the model's first."""
    name = call.task if call.task is not None else default.task
    return prompts.tasks[0] if name is None else find_task(prompts, name, model=model)


def query_prefix(prompts: EmbeddingPrompts, call: PromptChoice, default: PromptChoice, *, model: str) -> str:
    """Return what stands before a query."""
    choice = call if call.given else default
    if choice.instruction == "":
        return ""
    if choice.instruction is not None and prompts.instructed is not None:
        return prompts.instructed.replace("{instruction}", choice.instruction)
    return active_task(prompts, call, default, model=model).query


def document_prefix(task: Task, title: str | None, *, model: str, index: int | None = None) -> str:
    """Return what stands before a document.

    Raises:
        ArgumentError: There is a title and the task's prompt has no place for one.
    """
    if not title:
        return task.document
    if task.titled is None:
        raise ArgumentError(
            f"the document prompt of {model} for the task {task.name!r} has no place for a title; "
            "put the title into the text instead",
            index=index,
        )
    return task.titled.replace("{title}", title)


@dataclass(frozen=True, slots=True)
class RenderedPair:
    """One (query, document) pair, ready for a reranker. Only `document` may be truncated."""

    head: str
    document: str
    tail: str


def render_pair(query: str, document: str, prompt: RerankPrompt, instruction: str | None) -> RenderedPair:
    """Return the exact strings for one pair.

    Args:
        query: The query.
        document: The document.
        prompt: The model's template.
        instruction: The instruction in force, `None` for the template's own.
    """
    text = instruction if instruction is not None else prompt.default_instruction or ""
    # Split first: a query that contains "{instruction}" must stay as it is.
    before, slot, after = prompt.head.partition("{query}")
    if not slot:
        raise ArgumentError(f"the head of a rerank prompt needs the slot {{query}}: {prompt.head!r}")
    return RenderedPair(
        before.replace("{instruction}", text) + query + after.replace("{instruction}", text),
        document,
        prompt.tail,
    )
