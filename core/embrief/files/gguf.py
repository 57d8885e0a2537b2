"""Models in GGUF files: what a file is, whether it is what it should be, and how one is chosen among several."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from embrief.errors import (
    AmbiguousModelError,
    ArgumentError,
    ModelMismatchError,
    WeightsUnavailableError,
    WrongKindError,
)
from embrief.facts.formats import EIGHT, bits
from embrief.facts.specs import Artifact, EmbeddingSpec, RerankerSpec
from embrief.files.gguf_header import GgufHeader, dtype_in_name, is_gguf_file, parts_of, read_header
from embrief.files.identify import shorter_widths
from embrief.files.local import LocalModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embrief.facts.specs import ModelSpec
    from embrief.files.folders import Stamp
    from embrief.files.local import EmbedderFamily, RerankerFamily

ARCHITECTURES = {"qwen3": "qwen3", "gemma-embedding": "gemma3_text"}
"""What llama.cpp calls an architecture, and what config.json does."""
_POOLINGS = ("none", "mean", "cls", "last", "rank")
"""By llama.cpp's number."""
# Kinds of tokens, by llama.cpp's number.
_CONTROL, _USER_DEFINED = 3, 4
_PRE = {"gpt2": ("qwen2",), "llama": ("default", None)}
"""The ways to read a text that are known here, by the kind of vocabulary: `tokenizer.ggml.model` and `.pre`."""
_FINEST = ("float32", "float16", "bfloat16")
_CHUNK = 2**24
_SAMPLES, _SAMPLE = 64, 2**16


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokens of a file, and how texts become some of them."""

    kind: Literal["gpt2", "llama"]
    """Byte-level pairs with their merges, or SentencePiece's pairs with their scores."""
    tokens: list[str]
    merges: list[str]
    scores: Sequence[float]
    added: dict[int, bool]
    """The tokens that are taken from texts as they stand, by id: whether they are special."""
    begin: tuple[int, ...]
    """Ids in front of every text."""
    end: tuple[int, ...]
    """Ids behind every text."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a file is run: what it says, put right where that is certain."""

    file: Path
    pooling: Literal["last", "mean", "rank", "none"]
    """`"rank"`: its own score head; `"none"`: the logits of the last position."""
    width: int
    """Values per vector."""
    context: int
    """Tokens of the longest text."""
    vocabulary: Vocabulary
    repaired: tuple[str, ...]
    """What the file says otherwise than it is run."""


def plan(header: GgufHeader, spec: ModelSpec) -> Plan:
    """Compare a file with the facts about its model, and say how it is run.

    Args:
        header: The file.
        spec: The model, recorded or described from this file.

    Raises:
        ModelMismatchError: It is not this model, or what it lacks would give wrong results.
    """
    _check_model(header, spec)
    repaired: list[str] = []
    pooling: Literal["last", "mean", "rank", "none"]
    if isinstance(spec, EmbeddingSpec):
        if spec.pooling not in ("last", "mean"):
            raise ModelMismatchError(f"the pooling {spec.pooling!r} of {spec.id} is not run from GGUF files")
        pooling = spec.pooling
        if header_pooling(header) == "rank" or "cls.output.weight" in header.tensors:
            raise WrongKindError(f"{header.file} is a reranker", use=f"Reranker({str(header.file)!r})")
        if header_pooling(header) != pooling:
            repaired.append(f"pooling is {header_pooling(header) or 'not said'}, run is {pooling}")
        _check_dense(header, spec)
    else:
        assert isinstance(spec, RerankerSpec)  # there is no third kind
        pooling = _score_head(header, spec)
    vocabulary = _vocabulary(header, spec, repaired)
    return Plan(
        header.file,
        pooling,
        _need(header, "embedding_length"),
        _need(header, "context_length"),
        vocabulary,
        tuple(repaired),
    )


def header_pooling(header: GgufHeader) -> str | None:
    """Return the pooling that a file says, `None` if it says none.

    Raises:
        ModelMismatchError: It says one that nobody knows.
    """
    number = header.count(f"{header.text('general.architecture')}.pooling_type")
    if number is not None and number >= len(_POOLINGS):
        raise ModelMismatchError(f"{header.file} says the pooling {number}, which is not known here")
    return None if number is None else _POOLINGS[number]


def architecture_of(header: GgufHeader) -> str:
    """Return a file's architecture as config.json calls it.

    Raises:
        ModelMismatchError: It is one that is not run from GGUF files.
    """
    said = header.text("general.architecture")
    if said not in ARCHITECTURES:
        raise ModelMismatchError(
            f"{header.file} has the architecture {said!r}, and only {' and '.join(ARCHITECTURES)} are run from GGUF "
            "files; serve it with llama-server or Ollama, or pass the original model"
        )
    return ARCHITECTURES[said]


def _need(header: GgufHeader, key: str) -> int:
    found = header.count(f"{header.text('general.architecture')}.{key}")
    if not found:
        raise ModelMismatchError(f"{header.file} does not say {key}; convert the model again")
    return found


def _check_model(header: GgufHeader, spec: ModelSpec) -> None:
    wrong: list[str] = []

    def compare(what: str, found: object, due: object) -> None:
        if due is not None and found != due:
            wrong.append(f"{what} is {found!r}, due is {due!r}")

    compare("architecture", architecture_of(header), spec.architecture)
    width = _need(header, "embedding_length")
    compare("width", width, spec.hidden_size)
    if isinstance(spec, EmbeddingSpec):
        compare("width of the vectors", width, spec.dim)
    if _need(header, "context_length") < spec.max_tokens:
        wrong.append(f"it holds {_need(header, 'context_length')} tokens, and the limit is {spec.max_tokens}")
    tokens = header.texts("tokenizer.ggml.tokens") or []
    # By default each is what its architecture is. A model that was trained otherwise is another one.
    key = f"{header.text('general.architecture')}.attention.causal"
    compare("causal attention", header.flag(key), None if header.flag(key) is None else spec.architecture == "qwen3")
    table = header.tensors.get("token_embd.weight")
    if table is None or table.shape != (len(tokens), width):
        shape = None if table is None else table.shape
        wrong.append(f"its table of token vectors has the shape {shape}, due is {(len(tokens), width)}")
    layers = {int(name.split(".")[1]) for name in header.tensors if name.startswith("blk.") and _numbered(name)}
    if len(layers) != _need(header, "block_count") or layers != set(range(len(layers))):
        wrong.append(f"it has tensors of {len(layers)} layers and says {_need(header, 'block_count')}")
    if wrong:
        raise ModelMismatchError(f"{header.file} is not {spec.id}: {'; '.join(wrong)}")


def _numbered(name: str) -> bool:
    number = name.split(".")[1]
    return number.isascii() and number.isdigit() and len(number) < 6


def _check_dense(header: GgufHeader, spec: EmbeddingSpec) -> None:
    """Refuse EmbeddingGemma without its two Dense layers: vectors have the right width and are wrong."""
    if spec.architecture != "gemma3_text":
        return
    inner = header.count("gemma-embedding.dense_2_feat_out")
    due = {"dense_2.weight": (inner, spec.dim), "dense_3.weight": (spec.dim, inner)}
    for name, shape in due.items():
        tensor = header.tensors.get(name)
        if tensor is None or tensor.shape != shape:
            has = "lacks" if tensor is None else "has another shape of"
            raise ModelMismatchError(
                f"{header.file} {has} {name}, one of the two Dense layers behind the pooling, without which vectors "
                "are wrong; convert the model with --sentence-transformers-dense-modules, or take a file that has them"
            )


def _score_head(header: GgufHeader, spec: RerankerSpec) -> Literal["rank", "none"]:
    if spec.scoring != "yes_no":
        raise ModelMismatchError(f"rerankers with the scoring {spec.scoring!r} are not run from GGUF files")
    if "cls.output.weight" not in header.tensors:
        return "none"
    labels = header.texts(f"{header.text('general.architecture')}.classifier.output_labels")
    if labels == [spec.true_token, spec.false_token]:
        return "rank"
    # Of an output layer of its own, a converted reranker has these rows and no others.
    if "output.weight" in header.tensors:
        return "none"
    raise ModelMismatchError(
        f"{header.file} has a score head with the labels {labels}, due are {[spec.true_token, spec.false_token]}, and "
        "no output layer to read the answer from; convert the model again"
    )


def _vocabulary(header: GgufHeader, spec: ModelSpec, repaired: list[str]) -> Vocabulary:
    kind, pre = header.text("tokenizer.ggml.model"), header.text("tokenizer.ggml.pre")
    if kind not in _PRE or pre not in _PRE[kind]:
        raise ModelMismatchError(
            f"{header.file} reads texts as {kind!r} with {pre!r} (tokenizer.ggml.model and .pre), and here that is "
            "known of gpt2 with qwen2 and of llama with default; convert the model again with a newer llama.cpp"
        )
    tokens = header.texts("tokenizer.ggml.tokens") or []
    kinds = header.numbers("tokenizer.ggml.token_type")
    merges, scores = header.texts("tokenizer.ggml.merges") or [], header.numbers("tokenizer.ggml.scores")
    if len(set(tokens)) != len(tokens):
        raise ModelMismatchError(f"{header.file} has one token under two ids; convert the model again")
    if kinds is None or len(kinds) != len(tokens):
        raise ModelMismatchError(f"{header.file} does not say the kind of each token; convert the model again")
    if not (merges if kind == "gpt2" else scores is not None and len(scores) == len(tokens)):
        raise ModelMismatchError(f"{header.file} lacks what joins its tokens; convert the model again")
    added = {number: type_ == _CONTROL for number, type_ in enumerate(kinds) if type_ in (_CONTROL, _USER_DEFINED)}
    begin: tuple[int, ...] = ()
    end: tuple[int, ...] = ()
    if isinstance(spec, EmbeddingSpec):
        ids = {tokens[number]: number for number in added}
        if spec.architecture == "gemma3_text":
            begin = (_id_of(header, ids, "<bos>"),)
        if spec.final_token is not None:
            end = (_id_of(header, ids, spec.final_token),)
            said = header.count("tokenizer.ggml.eos_token_id")
            if said != end[0]:
                repaired.append(f"the end token is {said}, appended is {end[0]}")
            elif not header.flag("tokenizer.ggml.add_eos_token"):
                repaired.append("the end token is not appended by the file, and is here")
    return Vocabulary("gpt2" if kind == "gpt2" else "llama", tokens, merges, scores or [], added, begin, end)


def _id_of(header: GgufHeader, ids: dict[str, int], token: str) -> int:
    if token not in ids:
        raise ModelMismatchError(
            f"the vocabulary of {header.file} has no special token {token!r}, which the model was trained with; this "
            "is the file of another model"
        )
    return ids[token]


def read_model(files: Sequence[Path]) -> GgufHeader:
    """Return what a model says of itself whose tensors may be spread over several files.

    Raises:
        WeightsUnavailableError, ModelMismatchError: A file is not there, or damaged.
    """
    first, *others = map(read_header, files)
    if not others:
        return first
    tensors = dict(first.tensors)
    for part in others:
        if twice := sorted(set(tensors) & set(part.tensors)):
            raise ModelMismatchError(f"{part.file} has the tensor {twice[0]!r} of another part; fetch all parts again")
        tensors |= part.tensors
    return replace(first, tensors=tensors)


def select(names: Sequence[str], dtype: str, place: str) -> tuple[str, ...]:
    """Return the files of a folder or repository that hold a model in a number format.

    Args:
        names: All files that are there.
        dtype: The format, as it is called here.
        place: The folder or repository, for messages.

    Raises:
        WeightsUnavailableError: There is none; the message lists what there is.
    """
    models = [name for name in names if name.lower().endswith(".gguf") and not _is_tower(name)]
    fitting = [name for name in models if dtype_in_name(name) == dtype]
    # Of the others parts may be missing: a download that was broken off is not in the way of another format.
    found = complete(fitting, place) if fitting else []
    if len(found) != 1:
        problem = f"has {len(found)} GGUF files in {dtype}" if found else f"has no GGUF file in {dtype}"
        there = f"it has {', '.join(models)}: name a format by dtype=, or pass a file" if models else "nor in another"
        raise WeightsUnavailableError(f"{place} {problem}; {there}")
    return found[0]


class GgufFile(LocalModel):
    """A GGUF file, or a folder that holds some and no safetensors: one model in several number formats."""

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Return whether it is such a file or folder. Reads names, and the first bytes of a file."""
        if not path.is_dir():
            return is_gguf_file(path)
        try:
            names = {entry.suffix.lower() for entry in path.iterdir()}
        except OSError:
            return False
        return ".gguf" in names and ".safetensors" not in names

    @property
    def folder(self) -> Path:
        """Return the folder, or that of the file."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def label(self) -> str:
        """Return the name of the file without its ending, or of the folder."""
        return self.path.name if self.path.is_dir() else self.path.stem

    @property
    def _names(self) -> list[str]:
        if not self.path.is_dir():
            return [part.name for part in with_parts(self.path)]
        return sorted(
            entry.name
            for entry in self.path.iterdir()
            if entry.suffix.lower() == ".gguf" and entry.is_file() and not _is_tower(entry.name)
        )

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """Return the model once per number format.

        Raises:
            WeightsUnavailableError, ModelMismatchError: The file is damaged; in a folder, one that does not say its
                format in its name.
            ArgumentError: Two files are in one format, so that they are of two models.
        """
        found: dict[str, Artifact] = {}
        for files in complete(self._names, str(self.path)):
            dtype = dtype_in_name(files[0]) if self.path.is_dir() else None
            # One file is in the format that it is in, whatever its name says: Q4_K_XL, for instance, is none.
            dtype = dtype or read_model([self.folder / name for name in files]).dtype
            if dtype in found:
                raise ArgumentError(
                    f"{self.path} has more than one GGUF file in {dtype} ({found[dtype].files[0]}, {files[0]}), so it "
                    "is not one model in several formats; name one of its files"
                )
            found[dtype] = Artifact("gguf", "", "", files, dtype)
        return tuple(found.values())

    def check(self) -> None:
        """Refuse a file that is damaged; in a folder, the first."""
        read_header(self.folder / self.artifacts[0].files[0])

    def stamp(self) -> Stamp:
        """Return names, sizes and times of all GGUF files."""
        try:
            found = [(name, (self.folder / name).stat()) for name in self._names]
        except OSError as error:
            raise WeightsUnavailableError(f"{self.path} is not there, or cannot be read: {error}") from error
        return tuple((name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in found)

    def check_unchanged(self, known: Stamp) -> None:
        """Refuse files that were written again."""
        if changed := sorted({name for name, *_ in {*self.stamp()} ^ {*known}}):
            raise ModelMismatchError(
                f"{self.path} changed since its facts were read ({', '.join(changed)}): its vectors would not belong "
                "to the space that was named. When it is written, make a new embedder or reranker"
            )

    def weights(self, artifact: Artifact | None) -> str:
        """Return a digest of the file, whatever it is called. Reads all of it, about a second for 1 to 2 GB."""
        files = (artifact or self.artifacts[0]).files
        known = [entry for entry in self.stamp() if entry[0] in files]
        return content_digest(tuple(self.folder / name for name, *_ in known), tuple(known))

    def embedder(self, family: EmbedderFamily, like: EmbeddingSpec | None) -> EmbeddingSpec:
        """Describe the embedding model in the file."""
        artifacts = self.artifacts
        header = read_model([self.folder / name for name in artifacts[0].files])
        pooling = header_pooling(header)
        if pooling == "rank" or "cls.output.weight" in header.tensors:
            raise WrongKindError(f"{self.path} is a reranker", use=f"Reranker({str(self.path)!r})")
        architecture = architecture_of(header)
        base = like or family(architecture)
        if base is None:
            raise AmbiguousModelError(f"nothing is recorded of models of the architecture {architecture!r}; pass like=")
        if like is None and pooling is None and not header.flag("tokenizer.ggml.add_eos_token"):
            raise AmbiguousModelError(
                f"{self.path} says neither a pooling nor that an end token is appended, so it may be a language model, "
                f"a reranker or an embedder; say which: like={base.id!r} takes pooling, end token and prompts from "
                "that record, Reranker(...) loads a reranker"
            )
        if like is None and pooling not in (None, base.pooling):
            raise ModelMismatchError(
                f"{self.path} says the pooling {pooling!r}, and models like {base.id} have {base.pooling!r}; if it is "
                f"such a model, like={base.id!r} runs it so"
            )
        width, context = _need(header, "embedding_length"), _need(header, "context_length")
        return EmbeddingSpec(
            id=self.label,
            revision="",
            license="unknown",
            architecture=architecture,
            hidden_size=width,
            dim=width,
            mrl=shorter_widths(base, width),
            max_tokens=min(base.max_tokens, context),
            context=context,
            pooling=base.pooling,
            padding_side=base.padding_side,
            prompts=base.prompts,
            final_token=base.final_token,
            banned_dtypes=base.banned_dtypes,
            format="gguf",
            artifacts=artifacts,
            source=str(self.path),
        )

    def reranker(self, family: RerankerFamily, like: RerankerSpec | None) -> RerankerSpec:
        """Describe the reranker in the file: a causal language model, with a score head or without."""
        artifacts = self.artifacts
        header = read_model([self.folder / name for name in artifacts[0].files])
        architecture = architecture_of(header)
        base = like or family(architecture)
        if base is None:
            raise WrongKindError(f"{self.path} is an embedding model", use=f"Embedder({str(self.path)!r})")
        if header_pooling(header) not in (None, "none", "rank") or header.flag("tokenizer.ggml.add_eos_token"):
            raise WrongKindError(
                f"{self.path} pools its states or appends an end token, as embedders do and rerankers never",
                use=f"Embedder({str(self.path)!r})",
            )
        context = _need(header, "context_length")
        return replace(
            base,
            id=self.label,
            revision="",
            license="unknown",
            gated=False,
            architecture=architecture,
            parameters=None,
            hidden_size=_need(header, "embedding_length"),
            max_tokens=min(base.max_tokens, context),
            context=context,
            defines_family=False,
            aliases=(),
            served_names=(),
            verified=False,
            folder=None,
            format="gguf",
            artifacts=artifacts,
            source=str(self.path),
        )


def _is_tower(name: str) -> bool:
    """Return whether a file holds what reads pictures for a model, and no model."""
    return "mmproj" in name.lower()


def complete(names: Sequence[str], place: str) -> list[tuple[str, ...]]:
    """Return the models among the files of a folder or repository: one file each, or the parts of one.

    Raises:
        WeightsUnavailableError: Parts are missing, or nothing is there.
    """
    whole = [(name,) for name in names if parts_of(name) == (1, 1)]
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        number, count = parts_of(name)
        if count > 1:
            groups.setdefault(name[: name.lower().rindex(f"-{number:05d}-of-")], []).append(name)
    for parts in groups.values():
        if [parts_of(name)[0] for name in parts] != list(range(1, parts_of(parts[0])[1] + 1)):
            raise WeightsUnavailableError(f"{place} lacks parts: of {parts_of(parts[0])[1]} there are {parts}")
    if not whole and not groups:
        raise WeightsUnavailableError(f"{place} has no GGUF file")
    return [*whole, *map(tuple, groups.values())]


def best(dtypes: Sequence[str], banned: Sequence[str] = ()) -> str | None:
    """Return the finest of several number formats, if it keeps at least 8 bits of a weight; `None`: none does."""
    fine = [name for name in dtypes if (bits(name) or 0) >= EIGHT and name not in banned]
    return max(fine, key=lambda name: (bits(name) or 0, name in _FINEST), default=None)


@lru_cache(maxsize=16)
def content_digest(files: tuple[Path, ...], known: Stamp) -> str:
    """Return `sha256:...` of the bytes of files, in order.

    Args:
        files: What is read.
        known: Their names, sizes and times: as long as these are the same, nothing is read again.

    Raises:
        WeightsUnavailableError: One is not there.
    """
    digest = hashlib.sha256()
    for file in files:
        try:
            with file.open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
        except OSError as error:
            raise WeightsUnavailableError(f"{file} is not there, or cannot be read: {error}") from error
    return "sha256:" + digest.hexdigest()


def with_parts(file: Path) -> list[Path]:
    """Return a file, or all parts of the model that it is the first part of.

    Raises:
        WeightsUnavailableError: It is not there, or a part is missing, or it is another part than the first.
    """
    number, count = parts_of(file.name)
    if not file.is_file():
        raise WeightsUnavailableError(f"there is no file {file}")
    if count == 1:
        return [file]
    if number != 1:
        raise WeightsUnavailableError(f"{file} is part {number} of {count}; pass the first")
    stem = file.name[: file.name.lower().rindex("-00001-of-")]
    found = [file.with_name(f"{stem}-{place:05d}-of-{count:05d}{file.suffix}") for place in range(1, count + 1)]
    if missing := [part.name for part in found if not part.is_file()]:
        raise WeightsUnavailableError(f"{file} lacks its parts {', '.join(missing)}")
    return found


def evidence(files: Sequence[Path]) -> str:
    """Return a short name for the content of files, without reading them whole: their ends and places between.

    Two quantisations of one model, or two trainings, differ in nearly every block.

    Raises:
        WeightsUnavailableError: One is not there.
    """
    try:
        return "file-" + _sampled(
            tuple(files), *((s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in map(Path.stat, files))
        )
    except OSError as error:
        raise WeightsUnavailableError(f"{files[0]} is not there, or cannot be read: {error}") from error


@lru_cache(maxsize=16)
def _sampled(files: tuple[Path, ...], *known: tuple[int, ...]) -> str:
    digest = hashlib.sha256()
    for file, (size, *_) in zip(files, known, strict=True):
        digest.update(size.to_bytes(8, "little"))
        with file.open("rb") as stream:
            for place in range(_SAMPLES + 1):
                stream.seek(max(size - _SAMPLE, 0) * place // _SAMPLES)
                digest.update(stream.read(_SAMPLE))
    return digest.hexdigest()[:16]
