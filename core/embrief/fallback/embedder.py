"""`FallbackEmbedder`: one model, run in several ways; whoever is there answers, and never another model unasked."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager, aclosing, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from embrief.errors import ArgumentError, ArgumentTypeError, DegradedAnswerError, EmbriefError
from embrief.facades import forms
from embrief.facades.embedder import Embedder, EmbedderSettings, EmbeddingResult
from embrief.fallback.chain import LEAST, Chain, Member, Unprobed, too_coarse
from embrief.fallback.falls import falls_through
from embrief.fallback.turns import name_of

if TYPE_CHECKING:
    from pathlib import Path

    from embrief.facades.progress import Progress
    from embrief.facades.streaming import Block
    from embrief.facts.prompts import Input
    from embrief.facts.specs import EmbeddingSpec, Role
    from embrief.facts.vectors import Matrix, Vector
    from embrief.fallback.events import OnEvent
    from embrief.serving.loading import SharedModel
    from embrief.serving.scheduler import Served


class FallbackEmbedder(Embedder):
    """Several ways to run one model, asked in turn: an `Embedder` that goes on when one of them is not there.

    All members make vectors of one space; a member is compared with vectors that `embrief parity NAME --record` kept
    before its first answer. What lies with the call (bad or too long input), a key that is refused, another model and
    NaN are errors as ever; see `embrief.fallback.falls`.
    """

    _chain: Chain
    _degraded: tuple[Embedder, ...]

    def __init__(
        self,
        members: Sequence[Embedder | str],
        *,
        unprobed: Unprobed = "refuse",
        allow_degraded: bool = False,
        probes: str | Path | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        """Compare the members' spaces, and load nothing.

        Args:
            members: Embedders, or names and references of models, the preferred one first.
            unprobed: What to do with a member where no vectors are kept to compare it with.
            allow_degraded: Let members of other spaces stand at the end of the chain. They answer `encode` and
                `aencode` alone, with results that are marked; every other method raises `DegradedAnswerError` instead.
            probes: The folder with kept vectors, if not in the usual place.
            on_event: Told of every answer, failure and opened breaker, with counts and names, on the caller's thread.

        Raises:
            ArgumentError: Members are of different spaces, of a number format below 8 bits, or there are too few.
            ArgumentTypeError: A member is no embedder and no name.
        """
        found = _embedders(members)
        first = found[0]
        whole = [item for item in found if item.space == first.space]
        others = [item for item in found if item.space != first.space]
        if others and not allow_degraded:
            raise _several_spaces(found)
        if found[len(whole) :] != others:
            raise ArgumentError(
                "the members of another space stand at the end of a chain: "
                f"{', '.join(map(name_of, [*whole, *others]))} is the order that can be"
            )
        for item in whole:
            if item.settings.dtype not in ("auto", *LEAST):
                raise too_coarse(name_of(item), item.settings.dtype)
        if unprobed not in ("refuse", "warn"):
            raise ArgumentError(f"unprobed={unprobed!r} is not known; use 'refuse' or 'warn'")
        names = _distinct([name_of(item) for item in whole])
        chain = Chain(
            [Member(name, item) for name, item in zip(names, whole, strict=True)],
            unprobed=unprobed,
            probes=probes,
            on_event=on_event,
        )
        self._hold(chain, tuple(others), first.settings)

    def _hold(self, chain: Chain, degraded: tuple[Embedder, ...], settings: EmbedderSettings) -> None:
        self._chain, self._degraded = chain, degraded
        self._settings, self._model, self._checked = settings, chain.members[0].embedder._shared, False
        self._store = None
        self._check_spec()

    @property
    def members(self) -> tuple[str, ...]:
        """The names of all members, in order; those of other spaces last."""
        return (*(member.name for member in self._chain.members), *map(name_of, self._degraded))

    @property
    def fingerprint(self) -> str:
        """A name for everything that may move a document vector: that of all members."""
        # What this view says counts for all members; of their own settings only how they run.
        parts = [self.space.id, str(self.max_tokens), "refused" if self._settings.truncate == "error" else "cut"]
        for member in self._chain.members:
            shared = member.embedder._shared
            own = [shared.backend.name, shared.offer.dtype, *self._identity(shared)]
            parts.append("\0".join(own))
        return "ef1-" + hashlib.sha256("\0\0".join(parts).encode()).hexdigest()[:32]

    def _served(self, shared: SharedModel[EmbeddingSpec]) -> Served:
        return self._chain

    def _view(self, **changes: Any) -> Self:
        twin = super()._view(**changes)
        if "special_tokens" in changes:
            for member in self._chain.members:
                # How texts are read is the runtime's work, and enters the space: a member that cannot is told here.
                member.embedder._view(special_tokens=changes["special_tokens"])
        twin._degraded = tuple(_with_what_it_takes(item, changes) for item in self._degraded)
        # One chain: what is known of a member holds for every view. Its members' own settings are not used but for the
        # space, which the view checks by its own.
        twin._chain = self._chain
        return twin

    def of_one_space(self) -> Self:
        """Return this fallback without its members of other spaces: it raises where those would answer."""
        twin = self._view()
        twin._degraded = ()
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        chain = self._chain
        whole = [member.embedder for member in chain.members]
        return _rebuild, (whole, self._degraded, chain.unprobed, chain.probes, self._settings.values())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.members)!r})"

    def encode(
        self,
        texts: Sequence[Input],
        *,
        role: Role,
        titles: Sequence[str | None] | None = None,
        instruction: str | None = None,
        task: str | None = None,
        progress: bool = False,
    ) -> EmbeddingResult:
        """`Embedder.encode` by the first member that can.

        Returns:
            As of `Embedder.encode`. `answered_by` names the member; `degraded` says that it is of another space, which
            `space` is then.
        """
        try:
            return super().encode(
                texts, role=role, titles=titles, instruction=instruction, task=task, progress=progress
            )
        except EmbriefError as error:
            for member in self._instead(error, texts):
                try:
                    found = member.encode(texts, role=role)
                except EmbriefError as other:
                    self._failed(member, len(texts), other)
                else:
                    return self._marked(member, found)
            raise

    async def aencode(
        self,
        texts: Sequence[Input],
        *,
        role: Role,
        titles: Sequence[str | None] | None = None,
        instruction: str | None = None,
        task: str | None = None,
        progress: bool = False,
    ) -> EmbeddingResult:
        """`encode` without blocking the event loop."""
        try:
            return await super().aencode(
                texts, role=role, titles=titles, instruction=instruction, task=task, progress=progress
            )
        except EmbriefError as error:
            for member in self._instead(error, texts):
                try:
                    found = await member.aencode(texts, role=role)
                except EmbriefError as other:
                    self._failed(member, len(texts), other)
                else:
                    return self._marked(member, found)
            raise

    def _instead(self, error: EmbriefError, texts: Sequence[Input] = ()) -> tuple[Embedder, ...]:
        """Return who may answer for inputs, marked, after an error of the whole chain."""
        if not falls_through(error):
            return ()
        pictured = any(map(forms.holds_image, texts))
        return tuple(member for member in self._degraded if member.spec.images is not None or not pictured)

    def _failed(self, member: Embedder, count: int, error: EmbriefError) -> None:
        if not falls_through(error):
            raise error
        self._chain.tell("failed", name_of(member), count, reason=type(error).__name__)

    def _marked(self, member: Embedder, found: EmbeddingResult) -> EmbeddingResult:
        self._chain.tell("degraded", name_of(member), len(found.vectors))
        return replace(found, degraded=True, answered_by=name_of(member))

    def embed_queries(
        self, texts: Sequence[Input], *, instruction: str | None = None, task: str | None = None
    ) -> Matrix:
        """`Embedder.embed_queries`; vectors of another space are an error."""
        return _whole(self.encode(texts, role="query", instruction=instruction, task=task))

    def embed_documents(
        self,
        texts: Sequence[Input],
        *,
        titles: Sequence[str | None] | None = None,
        task: str | None = None,
        progress: bool = False,
    ) -> Matrix:
        """`Embedder.embed_documents`; vectors of another space are an error."""
        return _whole(self.encode(texts, role="document", titles=titles, task=task, progress=progress))

    async def aembed_queries(
        self, texts: Sequence[Input], *, instruction: str | None = None, task: str | None = None
    ) -> Matrix:
        """`embed_queries` without blocking the event loop."""
        return _whole(await self.aencode(texts, role="query", instruction=instruction, task=task))

    async def aembed_documents(
        self,
        texts: Sequence[Input],
        *,
        titles: Sequence[str | None] | None = None,
        task: str | None = None,
        progress: bool = False,
    ) -> Matrix:
        """`embed_documents` without blocking the event loop."""
        return _whole(await self.aencode(texts, role="document", titles=titles, task=task, progress=progress))

    def encode_dims(
        self,
        texts: Sequence[Input],
        dims: Sequence[int],
        *,
        role: Role,
        titles: Sequence[str | None] | None = None,
        instruction: str | None = None,
        task: str | None = None,
    ) -> dict[int, EmbeddingResult]:
        """`Embedder.encode_dims` by the first member that can; vectors of another space are an error."""
        with self._of_one_space():
            return super().encode_dims(texts, dims, role=role, titles=titles, instruction=instruction, task=task)

    def check_documents(
        self, texts: Sequence[Input], *, titles: Sequence[str | None] | None = None, task: str | None = None
    ) -> None:
        """`Embedder.check_documents` by the first member that can.

        Raises:
            DegradedAnswerError: Only a member of another space is left.
        """
        with self._of_one_space():
            super().check_documents(texts, titles=titles, task=task)

    def _iter_blocks(
        self, found: Iterator[Block], bar: AbstractContextManager[Progress], task: str | None
    ) -> Iterator[Vector]:
        with self._of_one_space():
            yield from super()._iter_blocks(found, bar, task)

    async def _aiter_blocks(
        self, found: AsyncIterator[Block], bar: AbstractContextManager[Progress], task: str | None, progress: bool
    ) -> AsyncGenerator[Vector, None]:
        with self._of_one_space():
            async with aclosing(super()._aiter_blocks(found, bar, task, progress)) as vectors:
                async for vector in vectors:
                    yield vector

    @contextmanager
    def _of_one_space(self) -> Iterator[None]:
        """Around what gives vectors of this space alone: say so where another space's could be had."""
        try:
            yield
        except EmbriefError as error:
            if others := self._instead(error):
                raise _refused(name_of(others[0]), others[0].space.id) from error
            raise

    def info(self) -> dict[str, Any]:
        """Return what the first member would tell, and how each member does."""
        return {
            **super().info(),
            "members": [
                {
                    "name": member.name,
                    "backend": member.embedder._shared.backend.name,
                    "breaker": member.breaker.state,
                    "probed": member.probed,
                }
                for member in self._chain.members
            ],
            "degraded_members": list(map(name_of, self._degraded)),
        }


def _whole(result: EmbeddingResult) -> Matrix:
    if result.degraded:
        raise _refused(result.answered_by, result.space.id)
    return result.vectors


def _refused(who: str, space: str) -> DegradedAnswerError:
    return DegradedAnswerError(
        f"only {who} could answer, with vectors of the space {space}, which must not get among those of this one; try "
        "again later, or use encode(), whose results say what they are"
    )


def _embedders(members: Sequence[Embedder | str]) -> list[Embedder]:
    if isinstance(members, (str, Embedder)) or not isinstance(members, Sequence):
        raise ArgumentTypeError("members is a list of embedders and names of models")
    if len(members) < 2:
        raise ArgumentError(f"a fallback needs two members at least, and there are {len(members)}")
    found = []
    for index, member in enumerate(members):
        if isinstance(member, FallbackEmbedder) or not isinstance(member, (str, Embedder)):
            raise ArgumentTypeError(
                f"members[{index}] is a {type(member).__name__}, no Embedder and no name", index=index
            )
        found.append(Embedder(member) if isinstance(member, str) else member)
    return found


def _several_spaces(members: Sequence[Embedder]) -> ArgumentError:
    first = members[0].space
    told = "; ".join(f"{name_of(item)}: {item.space.id}" for item in members)
    other = next(item for item in members if item.space != first)
    differs = ", ".join(first.differences(other.space, names=(name_of(members[0]), name_of(other)))[:3])
    return ArgumentError(
        f"a fallback is one model run in several ways, since vectors of two spaces cannot be compared: {told} "
        f"({differs}). Leave {name_of(other)} out of fallback_chain; or, if an answer marked as another space's is "
        "better than none, set allow_degraded=True (allow_degraded: true in a configuration): encode() alone gives it"
    )


def _distinct(names: list[str]) -> list[str]:
    return [name if names.count(name) == 1 else f"{name} #{place + 1}" for place, name in enumerate(names)]


def _with_what_it_takes(member: Embedder, changes: dict[str, Any]) -> Embedder:
    """Return a member of another space with those settings that it has; its answers are marked all the same."""
    for name, value in changes.items():
        with suppress(ArgumentError):
            member = member._view(**{name: value})
    return member


def _rebuild(
    whole: list[Embedder],
    degraded: tuple[Embedder, ...],
    unprobed: Unprobed,
    probes: str | Path | None,
    settings: dict[str, Any],
) -> FallbackEmbedder:
    made = object.__new__(FallbackEmbedder)
    names = _distinct([name_of(item) for item in whole])
    members = [Member(name, item) for name, item in zip(names, whole, strict=True)]
    made._hold(Chain(members, unprobed=unprobed, probes=probes, on_event=None), degraded, EmbedderSettings(**settings))
    return made
