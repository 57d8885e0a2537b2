"""What the runtimes of exports share: rows of token ids from texts, padded batches, and rows of results from these.

Discovery imports it, so numpy and what needs it is imported inside functions.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import TYPE_CHECKING, Any, Protocol, cast

from embrief.errors import ArgumentError, InputTooLongError, ItemFailedError, ModelMismatchError
from embrief.facts.specs import EmbeddingSpec, RerankerSpec
from embrief.runtimes.base import Batched, Offer, Prepared, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from embrief.engine.tokens import IdRow
    from embrief.facts.prompts import Rendered
    from embrief.facts.specs import Format, Kind, ModelSpec
    from embrief.facts.values import Values
    from embrief.files.exports import Export
    from embrief.runtimes.base import Ask, LoadRequest, RunOptions, Token

_BATCH_TOKENS = {"cpu": 1024, "cuda": 16384, "gpu": 16384}
"""Per thread of a CPU; on a GPU in all."""


def offer_export(spec: ModelSpec, ask: Ask, form: Format, *, computes: Sequence[str] = ()) -> Offer | Refusal:
    """Offer an export in this format, as far as that does not depend on the device.

    Args:
        spec: The model.
        ask: What is asked for.
        form: The format.
        computes: Number formats in which the runtime can compute what its files hold in float32.
    """
    if spec.elsewhere is not None:
        return Refusal("loads models from their files")
    if spec.format != form:
        return Refusal(
            f"runs folders that `embrief export MODEL --to FOLDER --format {form}` makes; pass such a folder"
        )
    (artifact,) = spec.artifacts
    held = artifact.dtype or "float32"
    known = (held, *computes) if held == "float32" else (held,)
    if ask.dtype not in ("auto", *known):
        return Refusal(
            f"runs this export in {' or '.join(known)}, not in {ask.dtype}: its files hold {held}", "request"
        )
    return Offer(
        device=ask.device,
        dtype=held if ask.dtype == "auto" else ask.dtype,
        artifact=artifact,
        identity=artifact.revision,
    )


def verified(request: LoadRequest) -> Export:
    """Return what an export says of itself, after all its files were read and found to be those that it names.

    Raises:
        ModelMismatchError: A file was changed since it was exported.
        WeightsUnavailableError: One is missing.
    """
    from embrief.files.exports import ExportFolder

    folder = ExportFolder(cast("Path", request.folder))
    folder.verify()
    return folder.export


class Session(Protocol):
    """What runs a graph."""

    def run(self, ids: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[Any]:
        """Return the graph's results for ids (n, tokens), padded on the right, and lengths (n,)."""


class ExportedModel(Batched):
    """An embedding model or a reranker from an export, whatever runs its graph."""

    padded = True

    def __init__(
        self, request: LoadRequest, export: Export, threads: int, open_session: Callable[[Path], Session]
    ) -> None:
        """Read the tokenizer and the graph.

        Args:
            request: What to load.
            export: What the folder is.
            threads: Of the CPU.
            open_session: Reads the graph in a folder.

        Raises:
            ModelMismatchError: A file is none of its kind.
        """
        from embrief.engine.tokens import TextTokenizer
        from embrief.files.exports import ExportFolder
        from embrief.runtimes import torch_common

        folder = cast("Path", request.folder)
        self.spec, self.export = request.spec, export
        self._tokenizer: TextTokenizer = TextTokenizer(folder, lower_case=export.lower_case)
        beyond = self._tokenizer.beyond(self.export.vocabulary)
        torch_common.check_vocabulary(beyond, self.spec.id)
        self._known_only = bool(beyond)
        if isinstance(self.spec, EmbeddingSpec):
            self._tokenizer.check_final_token(self.spec.final_token, self.spec.id)
        kind = request.device.partition(":")[0].lower()
        self.batch_tokens = _BATCH_TOKENS[kind] * (threads if kind == "cpu" else 1)
        local = ExportFolder(folder)
        known = local.stamp()
        self._session: Session | None = open_session(folder)

        def reopen() -> Session:
            # Another export may be there by now: its graph would give vectors that the facts here are not about.
            local.check_unchanged(known)
            session = open_session(folder)
            local.check_unchanged(known)
            return session

        self._reopen: Callable[[], Session] | None = reopen
        _models.add(self)

    def prepare(self, inputs: Sequence[Rendered], options: RunOptions) -> Prepared:
        """Tokenise texts or pairs and cut them to the limit.

        Raises:
            ArgumentError: The limit is above that of the graph.
            InputTooLongError: An input is over the limit and may not be cut.
            ItemFailedError: A text has no tokens, or one that the model has no vector for.
        """
        from embrief.runtimes import torch_common
        from embrief.runtimes.rerank_common import pair_ids

        if isinstance(self.spec, RerankerSpec):
            found, _ = pair_ids(inputs, self._tokenizer.plain, options)
        else:
            found = torch_common.tokenize(self._tokenizer.whole, self._tokenizer.end, inputs, options)
        for index, row in enumerate(found.ids):
            if not len(row):
                raise ItemFailedError(
                    f"the text at index {index} has no tokens and {self.spec.id} adds none; leave it out", index=index
                )
            if len(row) > self.export.positions:
                raise InputTooLongError(
                    f"the text at index {index} has {len(row)} tokens, and the export of {self.spec.id} takes "
                    f"{self.export.positions}; leave max_tokens at that or below",
                    index=index,
                    tokens=len(row),
                    limit=self.export.positions,
                )
        if self._known_only:
            torch_common.check_known(found.ids, self.export.vocabulary, self.spec.id)
        return Prepared(found.ids, found.sizes, found.counts, found.truncated)

    def tokenize(self, inputs: Sequence[Rendered], options: RunOptions) -> list[list[Token]]:
        """Return the tokens of texts or pairs."""
        from embrief.runtimes.marking import marked_pairs, marked_texts

        marked = marked_pairs if isinstance(self.spec, RerankerSpec) else marked_texts
        return marked(self._tokenizer, inputs)

    def run_rows(self, rows: Sequence[Any], kinds: tuple[Kind, ...]) -> dict[Kind, Values]:
        """Return the vectors, or the log-odds, of a batch.

        Raises:
            ModelMismatchError: The graph gives something else than the export says.
        """
        import numpy as np

        from embrief.facts.values import Dense, Scores

        if self._session is None:
            assert self._reopen is not None  # a closed model is asked nothing
            self._session = self._reopen()
        found = np.asarray(self._session.run(*padded(rows)), np.float32)
        due = (len(rows), self.spec.dim) if isinstance(self.spec, EmbeddingSpec) else (len(rows),)
        if found.shape != due:
            raise ModelMismatchError(
                f"the graph of {self.spec.id} gives results of shape {found.shape}, and due is {due}; export the model "
                "again"
            )
        return {"dense": Dense(found)} if isinstance(self.spec, EmbeddingSpec) else {"score": Scores(found)}

    def close(self) -> None:
        """Free the weights."""
        self._session = self._reopen = None

    def forget(self) -> None:
        """Let go of the session in a forked child, where its threads are gone: the next batch makes another.

        It is never destroyed there, since that would wait for those threads.
        """
        if self._session is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))
            self._session = None


_models: weakref.WeakSet[ExportedModel] = weakref.WeakSet()


def _after_fork() -> None:
    for model in list(_models):
        model.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def padded(rows: Sequence[IdRow]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ids (n, longest), padded with zeros on the right, and lengths (n,)."""
    import numpy as np

    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    ids = np.zeros((len(rows), int(lengths.max())), np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
    return ids, lengths


def thread_count(asked: int | None) -> int:
    """Return how many threads compute: as many as were asked for, else one for each processor of this process.

    Raises:
        ArgumentError: That is no number of threads.
    """
    if asked is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if type(asked) is not int or not 1 <= asked <= 1024:
        raise ArgumentError(f"threads={asked!r} cannot be; give a number from 1 to 1024, or None for all")
    return asked
