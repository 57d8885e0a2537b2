"""What a runtime must offer, and how it is described without importing it."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

from embrief.errors import ArgumentError, ArgumentTypeError, BackendError, ClosedError, InputTooLongError
from embrief.system.installed import is_installed

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from embrief.facts.prompts import Rendered
    from embrief.facts.specs import Artifact, Kind, ModelSpec, SpecialTokens
    from embrief.facts.values import Gathered, Values
    from embrief.files.model_files import ModelFiles

S = TypeVar("S", bound="ModelSpec")


@dataclass(frozen=True, kw_only=True)
class RuntimeOptions:
    """What a runtime lets its users choose, such as a server's address: `Embedder(..., backend=Tei(base_url=...))`.

    A subclass per runtime, a frozen dataclass with keyword-only fields, each with a default where there can be one.
    Equal options are one model, others another. Values are plain (strings, numbers, flags, `None`, tuples of these).
    They are shown and travel in pickles, so they hold the name of the environment variable with a secret, and never a
    secret.
    """

    OF_THE_SPACE: ClassVar[tuple[str, ...]] = ()
    """Names of the fields by which `described` changes the vector space: strings, numbers or flags. Stores and the
    written configurations of wrappers keep these, and no other."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be compared, written down or shown.

        Raises:
            ArgumentTypeError: A value is not plain.
            ArgumentError: An address has a password in it.
        """
        for item in fields(self):
            value = getattr(self, item.name)
            if not _is_plain(value):
                raise ArgumentTypeError(
                    f"{type(self).__name__}({item.name}=...) takes plain values (strings, numbers, flags, None, tuples "
                    f"of these), not {type(value).__name__}"
                )
            if any(_PASSWORD.match(text) for text in _texts(value)):
                raise ArgumentError(
                    f"{type(self).__name__}({item.name}=...) has a password in the address, and options are shown and "
                    "stored; put it into an environment variable and give the variable's name"
                )

    def to_json(self) -> dict[str, Any]:
        """Return the values as plain JSON."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def kept(self) -> dict[str, Any]:
        """Return the values that decide the vector space and are not their defaults, as plain JSON."""
        of_the_space = [item for item in fields(self) if item.name in self.OF_THE_SPACE]
        return {item.name: value for item in of_the_space if (value := getattr(self, item.name)) != item.default}

    def described(self, spec: S) -> S:
        """Return the facts about a model as they are with these options.

        The fields that decide it belong into `OF_THE_SPACE`, where the facts that change are of the vector space.

        Raises:
            ArgumentError: The options cannot be had of this model.
        """
        return spec

    def stamp(self) -> tuple[tuple[str, int, int, int], ...]:
        """Return names, sizes and times of the files that these options name. Others are another model."""
        return ()


_PASSWORD = re.compile(r"[a-z][a-z0-9+.-]*://[^/@]*@", re.IGNORECASE)


def _texts(value: object) -> Iterator[str]:
    """Yield the strings of a plain value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _texts(item)


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (str, int, float, bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a caller wants of a runtime besides the model."""

    device: str = "auto"
    dtype: str = "auto"
    options: RuntimeOptions = RuntimeOptions()
    """Of the runtime's own `Options`."""
    files: ModelFiles | None = None
    """The model's small files, where it has no record: a recorded model is what its record says."""
    final: bool = False
    """Whether the answer is what the model will be loaded with. Before that nothing heavy may be imported, and `"auto"`
    may stay as it is; then both are settled, and what a device can do may be looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A runtime can do it."""

    device: str
    """In the runtime's own words; `"auto"` only while the question is not final."""
    dtype: str
    artifact: Artifact | None = None
    """The files that it needs on this machine; `None`: none. The final offer has the same."""
    identity: str = ""
    """What else moves a vector besides runtime, number format and limits, such as the build of a server: it goes into
    the fingerprint."""
    native_dims: bool = False
    """Whether it makes a shorter vector itself (`RunOptions.dim`) instead of the full one to be cut."""
    renders: Literal["core", "server"] = "core"
    """Who puts the prompt around a text. A server that does it by itself reads `Rendered.source`; an instruction other
    than the model's own is refused then, before the call."""
    tells_truncation: bool = True
    """Whether it says which texts were cut off."""
    leaves_machine: bool = False
    """Whether texts are handed to a server, on another machine or on this one. Such a runtime runs only where it is
    named."""
    normalizes: bool = False
    """Whether vectors come with unit length whatever is asked for: `normalize=False` is refused then."""
    images: bool = False
    """Whether it takes pictures, of a model that does."""
    plain_text: bool = False
    """Whether it can read the names of special tokens in a text as letters."""
    calibrated: bool = True
    """Whether scores are log-odds of relevance. `False`: they order documents, and mean nothing else."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A runtime cannot do it."""

    reason: str
    """The rest of a sentence that begins with the runtime's name."""
    about: Literal["model", "files", "request"] = "model"
    """What is in the way: the kind of model, the files of one that it runs otherwise, or device, format and options."""


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """All that a runtime needs to load one model."""

    spec: ModelSpec
    folder: Path | None
    """Where the files of the offer's artifact are; `None` for a runtime that needs none."""
    device: str
    dtype: str
    trust_remote_code: bool = False
    options: RuntimeOptions = RuntimeOptions()
    artifact: Artifact | None = None
    identity: str = ""
    """What the offer said of itself beside format and artifact. Models that differ in it are loaded apart."""


class Runtime(ABC):
    """One way to run models. Making one must not import what it runs on.

    A plugin derives from it and registers an instance.
    """

    name: str
    requires: tuple[str, ...] = ()
    """Import names that must be there."""
    install: str = ""
    """Command that installs them."""
    preference: int = 0
    """Where several runtimes serve a model, the installed one with the highest preference runs it."""
    devices: tuple[str, ...] = ("cpu", "cuda", "mps")
    """The devices that it knows by name, without numbers."""
    dtypes: tuple[str, ...] = ("float32", "bfloat16", "float16")
    """The number formats that it knows by name."""
    Options: type[RuntimeOptions] = RuntimeOptions
    """Its options."""

    @abstractmethod
    def offer(self, spec: ModelSpec, ask: Ask) -> Offer | Refusal:
        """Say whether it serves a model, and how. Asked often and repeatable; asks no network.

        Args:
            spec: The model.
            ask: What else is wanted; device and format are among those that it knows.

        Raises:
            ArgumentError: Of a final question only: the device is not there, or cannot do what is asked.
        """

    @abstractmethod
    def load(self, request: LoadRequest) -> Model:
        """Load a model that it has offered: one that gives vectors or, of a `RerankerSpec`, scores."""

    def missing(self) -> tuple[str, ...]:
        """Return the import names that are not installed."""
        return tuple(name for name in self.requires if not is_installed(name))


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What one call asks of a loaded model."""

    max_tokens: int
    """Tokens per text, special tokens included."""
    refuse_long: bool = False
    """Raise `InputTooLongError` before any work if a text is longer, instead of cutting its end off."""
    batch_tokens: int | None = None
    """Tokens per batch, padding included; `None` lets the runtime choose."""
    dim: int | None = None
    """Width that will be kept. A runtime that can produce it natively may; others return the full width."""
    kinds: tuple[Kind, ...] = ()
    """What this call wants; empty: all that the model gives. Calls that want different kinds share no batch."""
    on_progress: Callable[[int], None] | None = None
    """Called with the number of texts just finished."""
    max_pixels: int | None = None
    """Largest area in which a picture is seen, for models that take pictures."""
    special_tokens: SpecialTokens = "parsed"
    """How the names of special tokens in what callers wrote are read; `"text"` only where the offer says it can be."""


def too_long(index: int, tokens: int, options: RunOptions, what: str = "the text") -> InputTooLongError:
    """Return the error for a text that may not be cut."""
    return InputTooLongError(
        f"{what} at index {index} has {tokens} tokens, the limit is {options.max_tokens}; split it, raise max_tokens, "
        "or cut its end off with truncate='warn' or 'silent'",
        index=index,
        tokens=tokens,
        limit=options.max_tokens,
    )


def no_room(index: int, tokens: int, options: RunOptions) -> InputTooLongError:
    """Return the error for a limit that leaves nothing of a text."""
    return InputTooLongError(
        f"the prompt of the text at index {index} has {tokens} tokens, special tokens included, so the limit of "
        f"{options.max_tokens} leaves no room for text; raise max_tokens",
        index=index,
        tokens=tokens,
        limit=options.max_tokens,
    )


@dataclass(frozen=True, slots=True)
class Output:
    """What a model returns: one row per input, in input order."""

    values: Mapping[Kind, Values]
    """By kind; those that `RunOptions.kinds` asks for."""
    token_counts: NDArray[np.int64] | None = None
    """(n,) length of each input before truncation, prompt and special tokens included; `None`: it does not say."""
    truncated: NDArray[np.bool_] | None = None
    """(n,) whether the end of the text or document was cut off; `None`: the runtime does not say."""
    answered_by: str = ""
    """Who answered, where that can differ from call to call."""

    @classmethod
    def dense(
        cls,
        vectors: NDArray[Any],
        token_counts: NDArray[np.int64] | None = None,
        truncated: NDArray[np.bool_] | None = None,
    ) -> Output:
        """Return the output of a model of one vector per text: (n, width), pooled, neither cut nor normalised.

        They are handed over: the caller may change them.
        """
        # Inside the function, here and below: what describes a runtime needs no numpy.
        import numpy as np

        from embrief.facts.values import Dense

        return cls({"dense": Dense(np.asarray(vectors))}, token_counts, truncated)

    @classmethod
    def scores(
        cls,
        logits: NDArray[Any],
        token_counts: NDArray[np.int64] | None = None,
        truncated: NDArray[np.bool_] | None = None,
    ) -> Output:
        """Return the output of a reranker: (n,) log-odds of relevance."""
        import numpy as np

        from embrief.facts.values import Scores

        return cls({"score": Scores(np.asarray(logits))}, token_counts, truncated)

    @classmethod
    def joined(cls, parts: Sequence[range], outputs: Sequence[Output], dim: int | None) -> Output:
        """Return the outputs of the parts of one call as one. What one of them does not tell is not told."""
        import numpy as np

        gathered = {kind: values.gather(parts[-1].stop, dim) for kind, values in outputs[0].values.items()}
        for part, output in zip(parts, outputs, strict=True):
            for kind, rows in gathered.items():
                rows.put(part, output.values[kind])
        counts = [output.token_counts for output in outputs if output.token_counts is not None]
        truncated = [output.truncated for output in outputs if output.truncated is not None]
        return cls(
            {kind: rows.whole() for kind, rows in gathered.items()},
            np.concatenate(counts) if len(counts) == len(outputs) else None,
            np.concatenate(truncated) if len(truncated) == len(outputs) else None,
            outputs[0].answered_by,
        )

    def check(self, count: int, kinds: tuple[Kind, ...]) -> None:
        """Refuse an output that is not that of `count` inputs and of these kinds.

        Raises:
            BackendError: It is not.
        """
        require_kinds(self.values, kinds)
        told = [("token counts", self.token_counts), ("flags of truncation", self.truncated)]
        lengths = [*((f"rows of kind {kind!r}", values) for kind, values in self.values.items()), *told]
        for what, values in lengths:
            if values is not None and len(values) != count:
                raise BackendError(f"the runtime returned {len(values)} {what} for {count} inputs")

    def array(self, kind: Kind) -> NDArray[Any]:
        """Return the rows of a kind that is one array: `"dense"`, (n, width), or `"score"`, (n,).

        Raises:
            BackendError: The model did not give this kind.
        """
        from embrief.facts.values import Rows

        values = self.values.get(kind)
        if not isinstance(values, Rows):
            raise BackendError(
                f"the model gave {', '.join(map(repr, self.values)) or 'nothing'}, and {kind!r} was asked for"
            )
        return values.array


def require_kinds(found: Mapping[Kind, Any], wanted: tuple[Kind, ...]) -> None:
    """Refuse what lacks a kind that was asked for.

    Raises:
        BackendError: One is missing.
    """
    if missing := [kind for kind in wanted if kind not in found]:
        gave = ", ".join(map(repr, found)) or "nothing"
        raise BackendError(f"the runtime gave {gave}, and {', '.join(map(repr, missing))} was asked for")


@dataclass(frozen=True, slots=True)
class Prepared:
    """The inputs of one call, ready to run: one row per text or pair, in input order."""

    rows: Sequence[Any]
    """What `run` takes; opaque to everyone else."""
    sizes: NDArray[np.int64]
    """(n,) tokens that each row adds to a batch; a prefix that is computed once for many rows does not count."""
    token_counts: NDArray[np.int64]
    """(n,) length of each input before truncation, prompt and special tokens included."""
    truncated: NDArray[np.bool_]
    """(n,) whether the end of the text or document was cut off."""


class Model(Protocol):
    """A loaded model, in memory or on a server. One call runs at a time, unless it is `Batched` or `Remote`."""

    def run(self, inputs: Sequence[Rendered], options: RunOptions) -> Output:
        """Return what it makes of rendered texts or pairs. Adds no prompt, cuts bodies only."""

    def close(self) -> None:
        """Free what the model holds."""


@runtime_checkable
class Batched(Model, Protocol):
    """Base for a model whose calls can be cut into rows and share batches: gives it the `run` that every model has."""

    batch_tokens: int
    """Tokens per batch unless the caller says otherwise."""
    padded: bool
    """Whether a batch is as wide as its longest row: it costs rows x longest instead of the sum of sizes."""
    side_by_side: int = 1
    """Rows that run at the same time: where a batch is full, it has a multiple of them."""

    def prepare(self, inputs: Sequence[Rendered], options: RunOptions) -> Prepared:
        """Turn rendered texts or pairs into rows. Called from any thread, also from several at once.

        Raises:
            InputTooLongError: An input is over the limit and may not be cut. Nothing was computed.
        """

    def run_rows(self, rows: Sequence[Any], kinds: tuple[Kind, ...]) -> Mapping[Kind, Values]:
        """Return one result per row, of each kind that is wanted; without kinds, of all. One call runs at a time.

        A row's result does not depend on the rows beside it. May raise for any of them; the caller finds out for which.
        """

    def run(self, inputs: Sequence[Rendered], options: RunOptions) -> Output:
        """Run the rows of one call in batches and put the results back in order."""
        prepared = self.prepare(inputs, options)
        gathered: dict[Kind, Gathered] = {}
        budget = options.batch_tokens or self.batch_tokens
        for batch in batches(prepared.sizes.tolist(), budget, padded=self.padded):
            found = self.run_rows([prepared.rows[index] for index in batch], options.kinds)
            require_kinds(found, options.kinds or tuple(gathered))
            for kind, values in found.items():
                if kind not in gathered:
                    gathered[kind] = values.gather(len(prepared.rows), options.dim)
                gathered[kind].put(batch, values)
            if options.on_progress:
                options.on_progress(len(batch))
        whole: dict[Kind, Values] = {kind: rows.whole() for kind, rows in gathered.items()}
        return Output(whole, prepared.token_counts, prepared.truncated)


class Remote(ABC):
    """Base for a model on a server: natively asynchronous, many calls at once.

    All of a process run on one event-loop thread of embrief's. A call is cut into requests of `batch_rows`; calls of
    different callers are never merged. A caller that is cancelled cancels its requests.
    """

    endpoint: str = ""
    """Names what the limit belongs to: models with one endpoint share it. Empty: the model alone."""
    in_flight: int = 32
    """Requests at once."""
    batch_rows: int = 32
    """Texts or pairs in one request."""
    deadline: float | None = None
    """Seconds for a whole call with all its requests; `None`: no limit of its own."""

    @abstractmethod
    async def arun(self, inputs: Sequence[Rendered], options: RunOptions) -> Output:
        """Return what the server makes of the inputs, at most `batch_rows`.

        Raises:
            UnavailableError: It cannot be reached, or does not answer in time. Not asked again, nor in smaller parts.
            RateLimitedError: It takes no more for now. The same.
            UnauthorizedError: It refuses the key. The same.
            ModelMismatchError: It serves another model. The same.
            InputTooLongError: An input is over the limit and may not be cut.
        """

    async def aclose(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Let go of connections, on the loop that they belong to."""

    def run(self, inputs: Sequence[Rendered], options: RunOptions) -> Output:
        """Return the same as `arun` of any number of inputs, one request after the other, on a thread that may wait."""
        from embrief.system.event_loop import must_not_wait, submit

        must_not_wait()
        future = submit(self._in_turn(inputs, options))
        try:
            return future.result()
        finally:
            future.cancel()

    def parts(self, inputs: Sequence[Rendered], options: RunOptions) -> list[range]:
        """Return the places of a call's inputs, request by request, in order."""
        size, count = max(self.batch_rows, 1), len(inputs)
        return [range(start, min(start + size, count)) for start in range(0, count, size)]

    async def _in_turn(self, inputs: Sequence[Rendered], options: RunOptions) -> Output:
        parts = self.parts(inputs, options)
        outputs = [await self.arun(inputs[part.start : part.stop], options) for part in parts]
        for part, output in zip(parts, outputs, strict=True):
            output.check(len(part), options.kinds)
        return Output.joined(parts, outputs, options.dim)

    def close(self) -> None:
        """Let go of connections, as far as that is done in a moment; at exit they go by themselves."""
        from embrief.system import exiting
        from embrief.system.event_loop import submit, wait_for

        with suppress(ClosedError):
            wait_for([submit(self.aclose())], seconds=exiting.PATIENCE)


@runtime_checkable
class Checking(Protocol):
    """What a loaded model that is not `Batched` may offer, so that stores find a text that is too long beforehand."""

    def check(self, inputs: Sequence[Rendered], options: RunOptions) -> None:
        """Raise what `run` would raise about the lengths of these inputs, and compute nothing."""


@runtime_checkable
class Counting(Protocol):
    """What a loaded model that is not `Batched` may offer, so that texts can be cut into parts of a known length."""

    def count(self, inputs: Sequence[Rendered], options: RunOptions) -> NDArray[np.int64] | None:
        """Return (n,) tokens of each input, prompt and special tokens included; `None`: that is not known here."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a rendered text."""

    id: int
    text: str
    """The characters that it stands for; of a special one its name, such as `<|endoftext|>`."""
    special: bool
    """Whether it is a marker of the model's, written in the text or put around it."""
    start: int | None = None
    """Its first character in `Rendered.shown`, or that of the mark of a picture; `None`: it was put around the text."""
    stop: int | None = None
    """Behind its last character. Tokens of parts of one character have the same place."""


@runtime_checkable
class Tokenizing(Protocol):
    """What a loaded model may offer, so that people can see what it reads."""

    def tokenize(self, inputs: Sequence[Rendered], options: RunOptions) -> list[list[Token]]:
        """Return the tokens of each input, prompt and special tokens included, nothing cut off whatever the limit."""


def batches(sizes: Sequence[int], budget: int, *, padded: bool) -> Iterator[list[int]]:
    """Yield positions in batches of similar size that stay within the token budget; a larger row goes alone.

    Longest first: if memory is short, it shows at once and not after an hour.
    """
    batch: list[int] = []
    cost = 0
    for position in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        # The longest row of a batch is its first.
        more = sizes[batch[0]] if padded and batch else sizes[position]
        if batch and cost + more > budget:
            yield batch
            batch, cost, more = [], 0, sizes[position]
        batch.append(position)
        cost += more
    if batch:
        yield batch
