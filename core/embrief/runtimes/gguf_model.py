"""Models in GGUF files: texts to token ids as everywhere, and llama.cpp in a process of its own for the rest."""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from embrief.errors import BackendError, ItemFailedError, ModelMismatchError
from embrief.facts.specs import EmbeddingSpec, RerankerSpec
from embrief.facts.values import Dense, Scores
from embrief.files.gguf import evidence, plan, read_model, select, with_parts
from embrief.files.json_files import LARGE, read_object
from embrief.files.weights import TOKENIZER, cached_file
from embrief.llama.library import Wanted
from embrief.llama.process import InChild, InThisProcess
from embrief.runtimes import torch_common
from embrief.runtimes.base import Batched, LoadRequest, Prepared, RunOptions, Token
from embrief.runtimes.gguf import Gguf
from embrief.runtimes.marking import marked_pairs, marked_texts
from embrief.runtimes.rerank_common import pair_ids
from embrief.system.log import logger

if TYPE_CHECKING:
    from embrief.engine.tokens import TextTokenizer
    from embrief.facts.prompts import Rendered
    from embrief.facts.specs import Kind, ModelSpec
    from embrief.facts.values import Values
    from embrief.files.gguf import Plan, Vocabulary
    from embrief.llama.process import Runner
    from embrief.runtimes.torch_common import IdRow, Tokenized

_BATCH_TOKENS = {"cpu": 1024, "cuda": 16384, "mps": 16384}
"""Tokens of one request: few enough on a CPU that a query does not wait long for a batch of documents. llama.cpp gets
them in smaller batches."""


_CHANGED = (
    "changed since its facts were read: its vectors would pass for those of the file before. When it is written, make "
    "a new embedder or reranker"
)


class _GgufModel(Batched):
    """What embedder and reranker have in common."""

    padded = False

    def __init__(self, request: LoadRequest) -> None:
        options = request.options if isinstance(request.options, Gguf) else Gguf()
        spec = request.spec
        self._label = spec.id
        files = _files(request, options)
        known = evidence(files)
        if options.file is not None and request.identity not in ("", known):
            raise ModelMismatchError(f"{files[0]} {_CHANGED}")
        header = read_model(files)
        self._plan = found = plan(header, spec)
        if request.artifact is not None and header.dtype != request.dtype:
            raise ModelMismatchError(
                f"{header.file} is in {header.dtype} and not in {request.dtype}, as its name says; rename it"
            )
        for what in found.repaired:
            logger.info("%s says otherwise than it is run: %s", header.file.name, what)
        self._tokenizer = _tokenizer(found.vocabulary, spec, header.file)
        self.batch_tokens = _BATCH_TOKENS[request.device.partition(":")[0]]
        kind = InChild if options.process == "child" else InThisProcess

        def check() -> None:
            if evidence(files) != known:
                raise ModelMismatchError(f"{files[0]} {_CHANGED}")

        self._runner: Runner = kind(self._wanted(found, request, options), spec.id, check)

    def _wanted(self, found: Plan, request: LoadRequest, options: Gguf) -> Wanted:
        return Wanted(
            file=str(found.file),
            pooling=found.pooling,
            width=found.width if isinstance(request.spec, EmbeddingSpec) else 2,
            causal=request.spec.architecture == "qwen3",
            context=min(found.context, request.spec.context),
            threads=options.threads or _threads(),
            gpu_layers=0 if request.device == "cpu" else options.gpu_layers,
            answers=self._answers(),
        )

    def _answers(self) -> tuple[int, ...]:
        return ()

    def _prepared(self, tokens: Tokenized) -> Prepared:
        for index, row in enumerate(tokens.ids):
            if not len(row):
                raise ItemFailedError(
                    f"the text at index {index} has no tokens and {self._label} adds none; leave it out", index=index
                )
        return Prepared(tokens.ids, tokens.sizes, tokens.counts, tokens.truncated)

    def _through(self, rows: Sequence[IdRow], width: int) -> np.ndarray:
        found = self._runner.run([array("i", row.astype(np.int32).tobytes()) for row in rows])
        return np.frombuffer(found, np.float32).reshape(len(rows), width).copy()

    def close(self) -> None:
        """End the process, or free the model."""
        self._runner.close()


class GgufEmbedder(_GgufModel):
    """An embedding model in llama.cpp."""

    def prepare(self, inputs: Sequence[Rendered], options: RunOptions) -> Prepared:
        """Tokenise texts and cut them to the limit."""
        return self._prepared(torch_common.tokenize(self._tokenizer.whole, self._tokenizer.end, inputs, options))

    def tokenize(self, inputs: Sequence[Rendered], options: RunOptions) -> list[list[Token]]:
        """Return the tokens of texts."""
        return marked_texts(self._tokenizer, inputs)

    def run_rows(self, rows: Sequence[Any], kinds: tuple[Kind, ...]) -> dict[Kind, Values]:
        """Return the pooled vectors of a batch."""
        return {"dense": Dense(self._through(rows, self._plan.width))}


class GgufReranker(_GgufModel):
    """A reranker in llama.cpp: log-odds are logit(yes) - logit(no) at the last position.

    Of a file with a score head instead, which gives the softmax of the two, they are the difference of the logarithms.
    """

    def _answers(self) -> tuple[int, ...]:
        spec = self._spec
        return tuple(self._tokenizer.single(token, spec.id) for token in (spec.true_token, spec.false_token))

    def __init__(self, request: LoadRequest) -> None:
        self._spec = cast("RerankerSpec", request.spec)
        super().__init__(request)

    def prepare(self, inputs: Sequence[Rendered], options: RunOptions) -> Prepared:
        """Tokenise pairs and cut the end of each document so that head, document and tail fit; the tail stays whole."""
        return self._prepared(pair_ids(inputs, self._tokenizer.plain, options)[0])

    def tokenize(self, inputs: Sequence[Rendered], options: RunOptions) -> list[list[Token]]:
        """Return the tokens of pairs."""
        return marked_pairs(self._tokenizer, inputs)

    def run_rows(self, rows: Sequence[Any], kinds: tuple[Kind, ...]) -> dict[Kind, Values]:
        """Return the log-odds of a batch."""
        found = self._through(rows, 2).astype(np.float64)
        if self._plan.pooling == "rank":
            if (found < 0).any() or not np.allclose(found.sum(-1), 1, atol=1e-2):
                raise BackendError(f"the score head of {self._label} gives no chances; this llama.cpp is another one")
            found = np.log(np.maximum(found, np.finfo(np.float32).tiny))
        return {"score": Scores((found[:, 0] - found[:, 1]).astype(np.float32))}


def _files(request: LoadRequest, options: Gguf) -> list[Path]:
    if options.file is not None:
        return with_parts(Path(options.file))
    folder, artifact = request.folder, request.artifact
    assert folder is not None  # it has offered files
    assert artifact is not None
    if not artifact.repo:
        return [folder / name for name in artifact.files]
    names = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    return [folder / name for name in select(names, request.dtype, artifact.repo)]


def _tokenizer(vocabulary: Vocabulary, spec: ModelSpec, file: Path) -> TextTokenizer:
    """Build the tokenizer, and compare it with the published one where that is on this machine.

    Raises:
        ModelMismatchError: The vocabulary cannot be, or is another one.
    """
    from embrief.engine.tokens import TextTokenizer
    from embrief.llama.vocabulary import build

    published = cached_file(spec.id, spec.revision, TOKENIZER)
    if published is not None:
        _compare(vocabulary, published, file)
    try:
        return TextTokenizer.of(build(vocabulary))
    except Exception as error:
        # The library raises bare exceptions, whatever is wrong.
        raise ModelMismatchError(f"the vocabulary of {file} is damaged ({error}); convert the model again") from error


def _compare(vocabulary: Vocabulary, published: Path, file: Path) -> None:
    found = read_object(published, limit=LARGE)
    model: dict[str, Any] = found.object("model") or {}
    due: dict[str, int] = {**model.get("vocab", {}), **{item["content"]: item["id"] for item in found["added_tokens"]}}
    # A token of Gemma's stands for a picture and has no vector; the converter writes blanks for the sign of a blank.
    wrong = [
        token
        for token, number in due.items()
        if number < len(vocabulary.tokens) and vocabulary.tokens[number] not in (token, token.replace("\u2581", " "))
    ]
    merges = [item if isinstance(item, str) else " ".join(item) for item in model.get("merges", [])]
    if wrong or (vocabulary.kind == "gpt2" and merges != vocabulary.merges):
        what = f"{len(wrong)} tokens, {wrong[0]!r} for one," if wrong else "merges"
        raise ModelMismatchError(
            f"{file} has other {what} than {published}; this is the file of another model, or the converter was wrong"
        )


def _threads() -> int:
    if (given := os.environ.get("OMP_NUM_THREADS", "")).isdigit() and int(given):
        return int(given)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
