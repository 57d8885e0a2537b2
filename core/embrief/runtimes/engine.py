"""The built-in engine as a runtime: models of the Qwen3, Qwen3-VL and Gemma families on torch alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from embrief.engine.description import PooledVisionModel, UnsupportedError, describe, with_pictures
from embrief.errors import ItemFailedError, ModelMismatchError
from embrief.facts.specs import EmbeddingSpec, RerankerSpec
from embrief.facts.values import Dense, Scores
from embrief.files.json_files import read_object
from embrief.files.modules import lower_cases, transformer_folder
from embrief.files.tensors import BUFFERS, BUFFERS_AND_HEADS
from embrief.runtimes import torch_common
from embrief.runtimes.base import Batched, LoadRequest, Prepared, RunOptions, Token
from embrief.runtimes.marking import marked_pairs, marked_pieces, marked_texts
from embrief.runtimes.pieces import PairPieces, TextPieces, check_picture_ids, check_vision_tokens, pictures
from embrief.runtimes.rerank_common import check_score_head, pair_ids

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from numpy.typing import NDArray

    from embrief.engine.batch import IdRow, Packed
    from embrief.engine.checkpoint import Checkpoint
    from embrief.engine.description import TextModel
    from embrief.engine.media import Picture
    from embrief.engine.pooled_vision import PooledVisionTower
    from embrief.engine.prefix import Prefix, PrefixCache
    from embrief.engine.seeing import Features
    from embrief.engine.seen import SeenPictures
    from embrief.engine.stack import Numbers, Stack
    from embrief.engine.tokens import TextTokenizer
    from embrief.engine.vision import VisionTower
    from embrief.facts.prompts import Rendered
    from embrief.facts.specs import Kind, ModelSpec, Template
    from embrief.facts.values import Values
    from embrief.runtimes.pieces import Pieces, Placed

_SHORTEST_PREFIX = 4
_THREAD_TOKENS = 1024
"""Tokens of a batch for each thread of a CPU: few enough that a query does not wait long for a batch of documents."""
_CUDA_BATCH_TOKENS = 1024, 16384
"""The least and the most on a GPU: more is no faster, and a query waits at most for one batch."""
_CUDA_SHARE = 0.4
"""Part of the free GPU memory that one batch may take."""


@dataclass(frozen=True, slots=True)
class _Row:
    """One text, ready to run."""

    ids: IdRow
    shared: int
    """Tokens at its start that other texts have too and that are computed once."""
    pictures: tuple[Placed, ...] = ()
    """Its pictures, in their order, none of them among the shared tokens."""


class _Engine(Batched):
    """What embedder and reranker have in common: the layers, the prefixes, and rows to batches."""

    padded = False

    def __init__(self, request: LoadRequest) -> None:
        # Inside functions, here and below: torch is heavy.
        import torch

        from embrief.engine.checkpoint import Checkpoint
        from embrief.engine.linear import INT8_LEVELS
        from embrief.engine.prefix import PrefixCache
        from embrief.engine.stack import Numbers, Stack
        from embrief.engine.threads import Threads
        from embrief.engine.tokens import TextTokenizer

        self._folder = cast("Path", request.folder)
        self._base = transformer_folder(self._folder)
        self._label = request.spec.id
        self._device = request.device
        config = read_object(self._base / "config.json")
        try:
            model = describe(config)
        except UnsupportedError as error:
            raise ModelMismatchError(f"the engine {error}; use backend='sentence-transformers'") from error
        if request.spec.images is not None:
            try:
                model = with_pictures(model, config)
            except UnsupportedError as error:
                raise ModelMismatchError(
                    f"the engine {error}; leave picture_prompt out and use it for texts"
                ) from error
        int8 = request.dtype in INT8_LEVELS
        between = torch_common.resolve(request.spec, request.device, "auto")[1] if int8 else request.dtype
        numbers = Numbers(request.device, getattr(torch, between), int8)
        self._model = model
        self._tokenizer: TextTokenizer = TextTokenizer(
            self._base, lower_case=lower_cases(self._folder), special_tokens=request.spec.special_tokens
        )
        torch_common.check_named_tokens(self._folder, self._tokenizer)
        beyond = self._tokenizer.beyond(model.vocabulary)
        torch_common.check_vocabulary(beyond, self._label)
        self._known_only = bool(beyond)
        self._checkpoint: Checkpoint = Checkpoint(self._base, self._label)
        self._images = request.spec.images
        self._pieces: Pieces | None = None
        if self._images is not None:
            check_vision_tokens(self._tokenizer, self._images, _templates(request.spec), self._label)
            check_picture_ids(config, self._tokenizer, self._images)
        last_only = self._last_only(request.spec)
        # A mean needs the states of the prompt's tokens too.
        self._shares = model.causal and last_only
        self._stack: Stack | None = Stack(model, self._checkpoint, numbers, last_only=last_only)
        self._prefixes: PrefixCache | None = PrefixCache(self._stack.prefix)
        self._tower, self._seen = self._vision(request, numbers)
        self._threads = Threads(torch.get_num_threads() if request.device == "cpu" else 1)
        self.side_by_side = self._threads.count
        self.batch_tokens = _budget(request.device, model.hidden_size + 2 * model.intermediate_size)

    def _vision(
        self, request: LoadRequest, numbers: Numbers
    ) -> tuple[VisionTower | PooledVisionTower | None, SeenPictures | None]:
        """Return what reads pictures, and remembers them, of a model that is given pictures."""
        from embrief.engine.pooled_vision import PooledVisionTower
        from embrief.engine.seen import SeenPictures
        from embrief.engine.vision import VisionTower

        model, images = self._model.vision, request.spec.images
        if model is None or images is None:
            return None, None
        if (images.patch, images.merge) != (model.patch, model.merge):
            raise ModelMismatchError(
                f"{self._label} reads pictures in {model.patch} pixels x {model.merge} patches by config.json, and in "
                f"{images.patch} x {images.merge} by its record; they do not belong together"
            )
        where = numbers.device, numbers.dtype
        if not isinstance(model, PooledVisionModel):
            tower = VisionTower(model, self._checkpoint, *where, mean=images.mean, std=images.std)
            return tower, SeenPictures(self._look)
        longest = max(images.budgets, default=0) * model.merge
        if longest > model.places:
            raise ModelMismatchError(
                f"the vision tower of {self._label} has {model.places} positions per axis, and pictures have up to "
                f"{longest}; these files do not belong together"
            )
        width = self._model.hidden_size
        return PooledVisionTower(model, self._checkpoint, *where, width=width), SeenPictures(self._look)

    def _look(self, pictures: list[NDArray[np.uint8]]) -> list[Features]:
        """Return the features of pictures, side by side where they are many."""
        import torch

        assert self._tower is not None
        tower = self._tower

        def run(places: list[int]) -> list[tuple[int, Features]]:
            # The mode belongs to the thread.
            with torch.inference_mode():
                return list(zip(places, tower.run([pictures[place] for place in places]), strict=True))

        parts = self._threads.run(run, self._threads.share([tower.patches(pixels) for pixels in pictures]))
        found = dict(pair for part in parts for pair in part)
        return [found[place] for place in range(len(pictures))]

    @staticmethod
    def _last_only(spec: ModelSpec) -> bool:
        return isinstance(spec, RerankerSpec) or cast("EmbeddingSpec", spec).pooling == "last"

    def _in_pieces(self, kind: type[Pieces], options: RunOptions) -> Pieces | None:
        """Return what tokenises inputs in which what callers wrote is letters only; `None`: this call's are parsed."""
        if not self._tokenizer.reads_letters and options.special_tokens == "parsed":
            return None
        if self._pieces is None:
            # Two threads may both make one, and either is right.
            self._pieces = kind(self._tokenizer.literal, self._images, self._label)
        return self._pieces

    def _prepared(
        self, tokens: torch_common.Tokenized, shared: Sequence[int], seen: Sequence[tuple[Placed, ...]] = ()
    ) -> Prepared:
        torch_common.check_fork(self._device)
        ids = tokens.ids
        if empty := [index for index, row in enumerate(ids) if not len(row)]:
            raise ItemFailedError(
                f"the text at index {empty[0]} has no tokens and {self._label} adds none; leave it out", index=empty[0]
            )
        if self._known_only:
            torch_common.check_known(ids, self._model.vocabulary, self._label)
        # The last token always runs: its state is what is wanted.
        kept = [min(run, len(row) - 1) for run, row in zip(shared, ids, strict=True)]
        kept = [run if self._shares and run >= _SHORTEST_PREFIX else 0 for run in kept]
        rows = [_Row(row, run, found) for row, run, found in zip(ids, kept, seen or [()] * len(ids), strict=True)]
        sizes = (
            tokens.sizes - np.array(kept, np.int64) + np.array([self._looking(row.pictures) for row in rows], np.int64)
        )
        return Prepared(rows, sizes, tokens.counts, tokens.truncated)

    def _looking(self, pictures: Sequence[Placed]) -> int:
        """Return how many tokens of text take as long as the tower takes for pictures."""
        if not pictures:
            return 0
        assert self._model.vision is not None  # no other model gets pictures
        square = self._model.vision.merge**2
        work = sum(self._model.vision.products(picture.tokens * square) for picture in pictures)
        return work // self._model.products

    def _through(self, rows: Sequence[_Row], head: Callable[[torch.Tensor, Packed], torch.Tensor]) -> NDArray[Any]:
        """Run a batch; return what the head makes of the hidden states of each row."""
        import torch

        from embrief.engine.batch import pack
        from embrief.engine.prefix import MAX_TOKENS
        from embrief.engine.seeing import Features

        assert self._stack is not None
        assert self._prefixes is not None
        stack = self._stack
        prefixes: dict[bytes, Prefix | None] = {b"": None}
        keys = [row.ids[: min(row.shared, MAX_TOKENS)] for row in rows]
        with torch.inference_mode():
            for key in keys:
                if key.tobytes() not in prefixes:
                    prefixes[key.tobytes()] = self._prefixes.get(key)
        own = [row.ids[len(key) :] for row, key in zip(rows, keys, strict=True)]
        before = [prefixes[key.tobytes()] for key in keys]
        shown = [pictures(row.pictures, index) for index, row in enumerate(rows)]
        features = self._features(shown)

        def run(places: list[int]) -> tuple[list[int], NDArray[Any]]:
            batch = pack(
                [own[place] for place in places],
                [before[place] for place in places],
                self._device,
                [shown[place] for place in places],
                spatial=self._model.spatial,
            )
            # The mode belongs to the thread.
            with torch.inference_mode():
                seen = [part for place in batch.order for part in features[places[place]]]
                found = head(stack.run(batch, Features.joined(seen) if seen else None), batch).cpu().numpy()
            return [places[place] for place in batch.order], found

        parts = self._threads.run(run, self._threads.share([len(ids) for ids in own]))
        values = np.empty((len(rows), *parts[0][1].shape[1:]), parts[0][1].dtype)
        for places, found in parts:
            values[places] = found
        return values

    def _features(self, shown: Sequence[Sequence[Picture]]) -> list[list[Features]]:
        """Return the features of the pictures of each row."""
        pictures = [picture for row in shown for picture in row]
        if not pictures:
            return [[] for _ in shown]
        assert self._seen is not None  # no other model gets pictures
        found = iter(self._seen.get(pictures))
        return [[next(found) for _ in row] for row in shown]

    def close(self) -> None:
        """Free the weights."""
        self._threads.close()
        self._stack = self._prefixes = self._tower = self._seen = None
        torch_common.free(self._device)


class EngineEmbedder(_Engine):
    """An embedding model on the engine."""

    def __init__(self, request: LoadRequest, *, without: Collection[str] = ()) -> None:
        """Read the model.

        Args:
            request: What to load.
            without: Kinds of modules behind the pooling that are left out, such as `"Dense"`: for a comparison with
                what others have left out.
        """
        from embrief.engine.heads import VectorHead

        super().__init__(request)
        spec = cast("EmbeddingSpec", request.spec)
        projection = None
        if (own := self._model.projection) is not None:
            (projection,) = self._checkpoint.read({own.tensor: (own.width, self._model.hidden_size)})
        self._checkpoint.check_all_read(unused=BUFFERS_AND_HEADS, other_parts=self._model.other_parts)
        self._tokenizer.check_final_token(spec.final_token, spec.id)
        assert spec.pooling is not None  # it has offered nothing else
        self._head = VectorHead(
            self._folder, spec.pooling, self._model.hidden_size, request.device, projection, without=without
        )
        if (width := self._head.width) != spec.dim:
            raise ModelMismatchError(f"{spec.id} gives {width} values per vector, its record says {spec.dim}")

    def prepare(self, inputs: Sequence[Rendered], options: RunOptions) -> Prepared:
        """Tokenise inputs and cut their texts to the limit."""
        from embrief.engine.prefix import common_run

        if (pieces := self._in_pieces(TextPieces, options)) is not None:
            made = pieces.tokenize(inputs, options)
            rows = zip(made.heads, inputs, made.tokens.ids, strict=True)
            openings = [common_run(made.known[name], row) if item.head else 0 for name, item, row in rows]
            return self._prepared(made.tokens, openings, made.pictures)
        found = torch_common.tokenize(self._tokenizer.whole, self._tokenizer.end, inputs, options)
        return self._prepared(found, self._openings(inputs, found.ids) if self._shares else [0] * len(inputs))

    def _openings(self, inputs: Sequence[Rendered], rows: list[IdRow]) -> list[int]:
        """Return how many ids of each row are its prompt's: all but those that change with what follows."""
        from embrief.engine.prefix import common_run

        heads = list(dict.fromkeys(item.head for item in inputs))
        end = self._tokenizer.end
        known = {head: row[: len(row) - end] for head, row in zip(heads, self._tokenizer.whole(heads), strict=True)}
        return [common_run(known[item.head], row) if item.head else 0 for item, row in zip(inputs, rows, strict=True)]

    def tokenize(self, inputs: Sequence[Rendered], options: RunOptions) -> list[list[Token]]:
        """Return the tokens of inputs."""
        if (pieces := self._in_pieces(TextPieces, options)) is not None:
            return marked_pieces(pieces, inputs, options)
        return marked_texts(self._tokenizer, inputs)

    def run_rows(self, rows: Sequence[Any], kinds: tuple[Kind, ...]) -> dict[Kind, Values]:
        """Return the pooled vectors of a batch."""
        return {"dense": Dense(self._through(rows, self._head))}


class EngineReranker(_Engine):
    """A reranker with a template on the engine.

    The log-odds are logit(yes) - logit(no) at the last position, or the one logit of a model trained to give it there.
    """

    def __init__(self, request: LoadRequest) -> None:
        from embrief.engine.heads import ScoreHead

        super().__init__(request)
        spec = cast("RerankerSpec", request.spec)
        if self._images is not None:
            self._tokenizer.check_nothing_around(spec.id)
        direction = relevance(spec, self._folder, self._checkpoint, self._tokenizer, self._model)
        self._head = ScoreHead(direction, request.device)

    def prepare(self, inputs: Sequence[Rendered], options: RunOptions) -> Prepared:
        """Tokenise pairs and cut the end of each document so that head, document and tail fit; the tail stays whole."""
        if (pieces := self._in_pieces(PairPieces, options)) is not None:
            made = pieces.tokenize(inputs, options)
            shared = self._shared(made.heads, made.known, made.tokens.ids)
            return self._prepared(made.tokens, shared, made.pictures)
        found, parts = pair_ids(inputs, self._tokenizer.plain, options)
        return self._prepared(found, self._shared([pair.head for pair in inputs], parts, found.ids))

    @staticmethod
    def _shared(heads: Sequence[Hashable], known: Mapping[Any, IdRow], rows: list[IdRow]) -> list[int]:
        """Return how much of each row other rows have too: the whole head, or what different heads have in common."""
        from embrief.engine.prefix import common_run, common_run_of_all

        found = list(dict.fromkeys(heads))
        common = common_run_of_all([known[head] for head in found]) if len(found) > 1 else 0
        alone = {head for head, count in Counter(heads).items() if count == 1}
        return [
            min(common_run(known[head], row), common) if head in alone else common_run(known[head], row)
            for head, row in zip(heads, rows, strict=True)
        ]

    def tokenize(self, inputs: Sequence[Rendered], options: RunOptions) -> list[list[Token]]:
        """Return the tokens of pairs."""
        if (pieces := self._in_pieces(PairPieces, options)) is not None:
            return marked_pieces(pieces, inputs, options)
        return marked_pairs(self._tokenizer, inputs)

    def run_rows(self, rows: Sequence[Any], kinds: tuple[Kind, ...]) -> dict[Kind, Values]:
        """Return the log-odds of a batch."""
        return {"score": Scores(self._through(rows, lambda hidden, batch: self._head(hidden)))}


def relevance(
    spec: RerankerSpec, folder: Path, checkpoint: Checkpoint, tokenizer: TextTokenizer, model: TextModel
) -> torch.Tensor:
    """Return what the last token's state is multiplied with, (hidden_size,). All tensors have to be read by now.

    Raises:
        ModelMismatchError: The files are not those of such a reranker.
    """
    if spec.scoring == "label":
        (score,) = checkpoint.read({"score.weight": (1, model.hidden_size)})
        checkpoint.check_all_read(unused=BUFFERS_AND_HEADS, other_parts=model.other_parts)
        return score[0]
    # The difference of the two rows of the output layer that mean yes and no.
    yes, no = (tokenizer.single(token, spec.id) for token in (spec.true_token, spec.false_token))
    check_score_head(folder, spec.id, yes=yes, no=no)
    tied = read_object(transformer_folder(folder) / "config.json").flag("tie_word_embeddings")
    # An output layer that is stored counts, whatever config.json says: transformers ties nothing then.
    name = "embed_tokens.weight" if tied and not checkpoint.holds("lm_head.weight") else "lm_head.weight"
    (table,) = checkpoint.read({name: (model.vocabulary, model.hidden_size)})
    checkpoint.check_all_read(unused=BUFFERS, other_parts=model.other_parts)
    return table[yes].float() - table[no].float()


def _templates(spec: ModelSpec) -> list[Template]:
    """Return what stands around a model's inputs."""
    if isinstance(spec, RerankerSpec):
        return [spec.template]
    tasks = cast("EmbeddingSpec", spec).prompts.tasks
    return [template for task in tasks for template in (task.query, task.document)]


def _budget(device: str, values_per_token: int) -> int:
    """Return the tokens per batch: few on a CPU, where more gain nothing; on a GPU by its free memory."""
    import torch

    if not device.startswith("cuda"):
        return _THREAD_TOKENS * (torch.get_num_threads() if device == "cpu" else 1)
    free, _ = torch.cuda.mem_get_info(device)
    least, most = _CUDA_BATCH_TOKENS
    # Intermediate results of one layer, in float32 and twice.
    return max(least, min(most, int(free * _CUDA_SHARE / (values_per_token * 8))))
