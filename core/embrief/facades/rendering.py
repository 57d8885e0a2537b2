"""What an embedding model reads: texts and pictures with the prompts asked for, and how many tokens pictures are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from embrief.errors import ArgumentError
from embrief.facades import arguments
from embrief.facts.prompts import (
    Around,
    Rendered,
    RenderedTexts,
    Source,
    active_task,
    beside_pictures,
    check_choice,
    document_template,
    query_template,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embrief.facts.prompts import Content, PromptChoice
    from embrief.facts.specs import EmbeddingSpec, Role


def rendered_as(
    role: Role,
    texts: Sequence[Content],
    spec: EmbeddingSpec,
    call: PromptChoice,
    default: PromptChoice,
    titles: Sequence[str | None] | None,
) -> Sequence[Rendered]:
    """Return texts and pictures with the prompts of a role.

    Args:
        role: Which side of the search they are on.
        texts: Checked texts and pictures.
        spec: The model's facts.
        call: What this call says about prompts.
        default: What the constructor said.
        titles: One title or `None` per document; `None`: no titles.

    Raises:
        ArgumentError: The role is not known, or an instruction, task or title does not fit it.
    """
    found = _with_prompts(role, texts, spec, call, default, titles)
    form = "around" if spec.images is None else spec.images.prompt
    if form == "around":
        return found
    choice = call if call.given else default
    pictured = [index for index, item in enumerate(texts) if not isinstance(item, str)]
    if form == "none" and role == "query" and choice.instruction and pictured:
        raise ArgumentError(
            f"the query at index {pictured[0]} has pictures, and the prompt of {spec.id}, which would hold "
            f"instruction={choice.instruction!r}, is not put beside pictures; leave it out, or pass instruction=''",
            index=pictured[0],
        )
    return beside_pictures(found, form)


def _with_prompts(
    role: Role,
    texts: Sequence[Content],
    spec: EmbeddingSpec,
    call: PromptChoice,
    default: PromptChoice,
    titles: Sequence[str | None] | None,
) -> Sequence[Rendered]:
    if role not in ("query", "document"):
        raise ArgumentError(f"role={role!r} is not known; use 'query' or 'document'")
    arguments.optional_text(call.instruction, "instruction")
    arguments.optional_text(call.task, "task")
    check_choice(spec.prompts, call, model=spec.id)
    mark = spec.images.mark if spec.images is not None else ""
    if role == "query":
        if call.instruction is not None and call.task is not None:
            raise ArgumentError(
                f"instruction={call.instruction!r} and task={call.task!r} both say what this query is for; give one"
            )
        if titles is not None:
            raise ArgumentError("titles belong to documents; a query has none")
        around, source = query_template(spec.prompts, call, default, model=spec.id)
        return RenderedTexts(texts, around, replace(source, image_mark=mark) if mark else source)
    if call.instruction is not None:
        raise ArgumentError(
            f"instruction={call.instruction!r} is for queries; documents are embedded once for all instructions"
        )
    applies = active_task(spec.prompts, call, default, model=spec.id)
    other = None if applies is spec.prompts.tasks[0] else applies.name
    plain = Source("document", task=other, image_mark=mark)
    if titles is None:
        return RenderedTexts(texts, applies.document, plain)
    found: list[Rendered] = []
    for index, (text, title) in enumerate(zip(texts, arguments.titles(titles, len(texts)), strict=True)):
        around = document_template(applies, title, model=spec.id, index=index)
        source = replace(plain, title=title) if title else plain
        written = around.written if isinstance(around, Around) else ()
        found.append(Rendered(around.head, text, around.tail, source, written))
    return found


def count_image_tokens(
    items: Sequence[Content], spec: EmbeddingSpec, max_pixels: int | None
) -> NDArray[np.int64] | None:
    """Return how many tokens the pictures of each item are, (n,); `None` of a model that takes texts only."""
    if (images := spec.images) is None:
        return None
    counts = np.zeros(len(items), np.int64)
    for place, item in enumerate(items):
        if not isinstance(item, str):
            sizes = [part.size for part in item if not isinstance(part, str)]
            counts[place] = sum(images.tokens(*size, max_pixels) for size in sizes)
    return counts
