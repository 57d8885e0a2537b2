"""The bytes that reach the tokenizer.

Nothing else in the library formats a text. Slots are filled by literal replacement in the template only, so that
braces, newlines, blanks and any Unicode of the caller's pass unaltered. `None` means "not given", `""` means "none".
"""

from __future__ import annotations

import difflib
import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, cast, overload

from embrief.errors import ArgumentError, BackendError
from embrief.facts.specs import NO_PROMPT, Template
from embrief.images.image import Image

if TYPE_CHECKING:
    from embrief.facts.specs import EmbeddingPrompts, PicturePrompt, RerankerSpec, Task

_SLOT = re.compile(r"\{(instruction|title|query)\}")


Content = str | tuple[str | Image, ...]
"""A text, or texts and images in their order."""
Input = str | Image | Sequence[str | Image] | Mapping[str, Any]
"""What callers pass: a text, an image, a sequence of both, or a mapping with "text" and "image"."""


@dataclass(frozen=True, slots=True)
class PromptChoice:
    """What one level (a call, or a constructor) asks for. An instruction decides queries, a task documents too."""

    instruction: str | None = None
    task: str | None = None

    @property
    def given(self) -> bool:
        """Return whether this level asks for anything."""
        return self.instruction is not None or self.task is not None


@dataclass(frozen=True, slots=True)
class Source:
    """What a rendered value was made of, for servers that put the prompt around a text by themselves.

    Besides the text, which is the value's body. One object serves all texts of a call that have it in common.
    """

    role: Literal["query", "document", "pair"] = "document"
    query: Content | None = None
    """The query of a pair."""
    instruction: str | None = None
    """The instruction in force, in the caller's words or the model's own; `None` where there is none."""
    title: str | None = None
    """The title of a document."""
    task: str | None = None
    """The task in force, where it is not the model's first; empty for a query without any prompt."""
    image_mark: str = ""
    """What stands for a picture where a rendered value is shown."""

    @property
    def asked(self) -> str:
        """Return the query of a pair without images, empty without one; servers of texts are given no others."""
        if self.query is None or isinstance(self.query, str):
            return self.query or ""
        raise BackendError("the query of this pair holds images, and was read as a text; read query instead")


_DOCUMENT = Source()


@dataclass(frozen=True, slots=True)
class Rendered:
    """One text, or one (query, document) pair, with its template around it: what a model gets.

    Two are equal if the model gets the same.
    """

    head: str
    """What stands before the body: a prompt, or a reranker's template with the query in it. Tokenised in one piece with
    the body, since a byte-pair merge may cross the seam."""
    body: Content
    """The caller's text, or the document of a pair; for models that take images, perhaps texts and images in order.
    The only part that may be cut, at its end."""
    tail: str = ""
    """What stands behind the body, tokenised by itself. Never cut."""
    source: Source = field(default=_DOCUMENT, compare=False)
    written: tuple[tuple[int, int], ...] = field(default=(), compare=False)
    """Where the head holds what callers wrote: places of its characters, from and to."""
    query: Content | None = None
    """The query of a pair, for models that take images: between the head and `middle`. `None`: the head holds it."""
    middle: str = ""
    """What stands between such a query and the body."""

    @property
    def pieces(self) -> tuple[str | Image, ...]:
        """Return all that the model gets in its order, prompts, texts and images."""
        query = () if self.query is None else _parts(self.query)
        return tuple(part for part in (self.head, *query, self.middle, *_parts(self.body), self.tail) if part != "")

    @property
    def images(self) -> tuple[Image, ...]:
        """Return the images in it, in order."""
        if isinstance(self.body, str) and (self.query is None or isinstance(self.query, str)):
            return ()
        return tuple(part for part in self.pieces if isinstance(part, Image))

    @property
    def shown(self) -> str:
        """Return the whole as one string, with a mark for each image."""
        return "".join(part if isinstance(part, str) else self.source.image_mark for part in self.pieces)

    @property
    def words(self) -> str:
        """Return the body of a text without images; models that take texts only are given no others."""
        if not isinstance(self.body, str):
            raise BackendError("this input holds images, and was read as a text; read body instead of words or text")
        return self.body

    @property
    def text(self) -> str:
        """Return the whole of a text without images, as one string."""
        if self.query is not None and not isinstance(self.query, str):
            raise BackendError("the query of this pair holds images, and was read as a text; read pieces instead")
        return self.head + (self.query or "") + self.middle + self.words + self.tail

    @property
    def key(self) -> bytes:
        """Return 32 bytes that name what the model gets: for caches. Equal values have equal keys, on every machine."""
        digest = hashlib.sha256()
        # Bodies of several parts have always been named so; a query in parts says how many it has.
        query = () if self.query is None else (f"\0query {len(_parts(self.query))}", *_parts(self.query), self.middle)
        for part in (self.head, *query, *_parts(self.body), self.tail):
            data = b"\0image" + part.digest if isinstance(part, Image) else part.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little") + data)
        return digest.digest()


def _parts(content: Content) -> tuple[str | Image, ...]:
    return content if isinstance(content, tuple) else (content,)


@dataclass(frozen=True, slots=True)
class Around(Template):
    """A template with its places filled by what callers wrote."""

    written: tuple[tuple[int, int], ...] = ()
    """As of `Rendered`, and so are the others."""
    query: Content | None = None
    middle: str = ""


class RenderedTexts(Sequence[Rendered]):
    """Texts with one template around each; made when they are looked at, since a corpus has very many."""

    __slots__ = ("around", "bodies", "source")

    def __init__(self, bodies: Sequence[Content], around: Template, source: Source) -> None:
        """Copy nothing."""
        self.bodies, self.around, self.source = bodies, around, source

    def __len__(self) -> int:
        return len(self.bodies)

    @overload
    def __getitem__(self, place: int) -> Rendered: ...

    @overload
    def __getitem__(self, place: slice) -> RenderedTexts: ...

    def __getitem__(self, place: int | slice) -> Rendered | RenderedTexts:
        if isinstance(place, slice):
            return self.of(self.bodies[place])
        around = self.around
        if isinstance(around, Around):
            return Rendered(
                around.head, self.bodies[place], around.tail, self.source, around.written, around.query, around.middle
            )
        return Rendered(around.head, self.bodies[place], around.tail, self.source)

    @property
    def texts(self) -> list[str]:
        """Return `text` of each, without making the values: for models that are faster than that."""
        head, tail = self.around.head, self.around.tail
        whole = not isinstance(self.around, Around) or self.around.query is None
        if whole and all(type(body) is str for body in self.bodies):
            bodies = cast("Sequence[str]", self.bodies)
            return [head + body + tail for body in bodies] if head or tail else list(bodies)
        return [item.text for item in self]

    def of(self, bodies: Sequence[Content]) -> RenderedTexts:
        """Return other texts with the same template."""
        return RenderedTexts(bodies, self.around, self.source)


def fill(template: Template, **values: str) -> Template:
    """Return a template with its slots `{instruction}`, `{title}` and `{query}` filled, as far as they are given.

    What is filled in is not looked at again: a query that contains "{instruction}" stays as it is.
    """

    def put(part: str) -> str:
        return _SLOT.sub(lambda slot: values.get(slot[1], slot[0]), part)

    return Template(put(template.head), put(template.tail))


def written(template: Template, **values: str) -> Around:
    """Return a template filled as by `fill`, which knows where its head holds the values."""
    head, spans, done = "", [], 0
    for slot in _SLOT.finditer(template.head):
        head += template.head[done : slot.start()]
        value = values.get(slot[1], slot[0])
        if slot[1] in values and value:
            spans.append((len(head), len(head) + len(value)))
        head += value
        done = slot.end()
    return Around(head + template.head[done:], fill(template, **values).tail, tuple(spans))


def as_sentence(instruction: str) -> str:
    """Return an instruction without blanks around it, and with a full stop unless it ends in punctuation.

    As the authors' code of Qwen3-VL-Embedding has it.
    """
    text = instruction.strip()
    return text if text and unicodedata.category(text[-1]).startswith("P") else f"{text}."


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
    if prompts.instruction_is_sentence and choice.instruction is not None and not choice.instruction.strip():
        raise ArgumentError(
            f"{model} always has an instruction in its prompt, so instruction={choice.instruction!r} cannot be "
            "followed; leave it out for the model's own, or say what queries are for"
        )
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


def query_template(
    prompts: EmbeddingPrompts, call: PromptChoice, default: PromptChoice, *, model: str
) -> tuple[Template, Source]:
    """Return what stands around a query, and what that says."""
    choice = call if call.given else default
    if choice.instruction == "":
        return NO_PROMPT, Source("query", task="")
    if choice.instruction is not None and prompts.instructed is not None:
        words = as_sentence(choice.instruction) if prompts.instruction_is_sentence else choice.instruction
        return written(prompts.instructed, instruction=words), Source("query", instruction=words)
    task = active_task(prompts, call, default, model=model)
    if task is prompts.tasks[0]:
        return task.query, Source("query", instruction=prompts.default_instruction)
    return task.query, Source("query", task=task.name)


def document_template(task: Task, title: str | None, *, model: str, index: int | None = None) -> Template:
    """Return what stands around a document.

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
    return written(task.titled, title=title)


def beside_pictures(inputs: Sequence[Rendered], prompt: PicturePrompt) -> Sequence[Rendered]:
    """Return inputs of an embedding model, in those with pictures the prompt where it stands beside them.

    The prompt then is a part of the body, in which no special token is looked for.

    Raises:
        ArgumentError: An input has pictures and a title, and no prompt that would hold it. It has the index.
    """
    if prompt == "around":
        return inputs
    return [
        _beside_pictures(item, prompt, index) if not isinstance(item.body, str) else item
        for index, item in enumerate(inputs)
    ]


def _beside_pictures(item: Rendered, prompt: PicturePrompt, index: int) -> Rendered:
    if prompt == "none" and item.source.title:
        raise ArgumentError(
            f"the document at index {index} has pictures and a title, and this model's prompt, which would hold it, is "
            "not put beside pictures; put the title into the text",
            index=index,
        )
    images = tuple(part for part in item.body if isinstance(part, Image))
    text = "".join(part for part in item.body if isinstance(part, str))
    source = item.source
    if prompt == "none":
        # What the model says of its own of queries is not said of these.
        source = replace(source, instruction=None, task=None)
    else:
        text = item.head + text
    return replace(item, head="", body=(*images, text) if text else images, written=(), source=source)


def pair_template(query: Content, spec: RerankerSpec, instruction: str | None) -> tuple[Template, Source]:
    """Return what stands around the documents of a query, and what that says.

    Args:
        query: The query; of a model that takes images, perhaps with some.
        spec: The model.
        instruction: The instruction in force, `None` for the model's own.
    """
    if "{query}" not in spec.template.head:
        raise ArgumentError(f"the head of a reranker's template needs the slot {{query}}: {spec.template.head!r}")
    text = instruction if instruction is not None else spec.default_instruction
    mark = spec.images.mark if spec.images is not None else ""
    source = Source("pair", query, text if spec.instructed else None, image_mark=mark)
    if isinstance(query, str):
        return written(spec.template, query=query, instruction=text or ""), source
    before, _, behind = spec.template.head.partition("{query}")
    around = written(Template(before, spec.template.tail), instruction=text or "")
    return Around(around.head, around.tail, around.written, query, behind), source


def group_by_query(inputs: Sequence[Rendered]) -> list[tuple[Source, list[int]]]:
    """Return the places of pairs that have query and instruction in common: one request of a rerank server each."""
    found: dict[Source, list[int]] = {}
    for place, item in enumerate(inputs):
        found.setdefault(item.source, []).append(place)
    return list(found.items())
