"""Folders that `embrief export` writes: a model in the files of another runtime, and a file that says what they are.

`embrief-export.json` names every other file with its digest, and itself has one. Nothing else in the folder is read.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Literal, cast

from embrief.errors import (
    ArgumentError,
    ModelMismatchError,
    NewerFormatError,
    WeightsUnavailableError,
    WrongKindError,
)
from embrief.facts.space import LOCAL
from embrief.facts.specs import Artifact, EmbeddingSpec, ModelSpec, RerankerSpec
from embrief.files.foreign import EXPORT_MARK as MARK
from embrief.files.foreign import is_hub_id
from embrief.files.json_files import JsonObject, read_object, reads_folder
from embrief.files.local import LocalModel
from embrief.files.spec_json import number, part, prompts_digest, spec_from_json, spec_to_json, text

if TYPE_CHECKING:
    from pathlib import Path

    from embrief.files.folders import Stamp
    from embrief.files.local import EmbedderFamily, RerankerFamily

FORMAT = 1
"""Of the file that says what a folder is."""
TOKENIZER = "tokenizer.json"
FILES: Mapping[str, tuple[str, ...]] = {
    "onnx": ("model.onnx", "model.onnx.data"),
    "openvino": ("model.xml", "model.bin"),
}
"""The files that each format may have besides the tokenizer; the first is always there. No others are ever read."""
ALL_FILES = frozenset({MARK, TOKENIZER, *(name for names in FILES.values() for name in names)})
"""Of exports in any format."""
DTYPES = ("float32", "int8")
IDS, LENGTHS, RESULT = "ids", "lengths", "result"
"""What the graph takes and gives. Not `embedding`, which is the name of a value inside: ONNX Runtime refuses that."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_WEIGHTS = re.compile(rf"{_COMMIT.pattern}|sha256:[0-9a-f]{{64}}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_AGAIN = "export the model again"
_MOST = 2**40
_MOST_TOKENS = 2**24


@dataclass(frozen=True, kw_only=True)
class Export:
    """What an export says of itself."""

    spec: EmbeddingSpec | RerankerSpec
    """The facts; of a recorded model those that were recorded when it was exported."""
    record: str | None
    """Id of the model's record; `None`: nothing is recorded about it."""
    origin: str
    """What spaces call the model."""
    label: str
    """What they call it for people."""
    weights: str
    """What names the weights in them."""
    format: Literal["onnx", "openvino"]
    dtype: str
    """Of `DTYPES`."""
    positions: int
    """Tokens per text that the graph takes."""
    vocabulary: int
    """Token ids that it knows."""
    lower_case: bool
    """Whether texts are put into lower case first."""
    parameters: int
    agreement: float
    """Least cosine with the original's vectors; of a reranker, the most that log-odds were from the original's."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of what made it."""

    @property
    def kind(self) -> Literal["embedder", "reranker"]:
        """Return what the model is."""
        return "embedder" if isinstance(self.spec, EmbeddingSpec) else "reranker"

    def write(self, folder: Path) -> None:
        """Write the file that says what the others in the folder are, and their digests: the last step."""
        names = [name for name in (*FILES[self.format], TOKENIZER) if (folder / name).exists()]
        values: dict[str, Any] = {
            "format": FORMAT,
            "kind": self.kind,
            "record": self.record,
            "facts": spec_to_json(self.spec),
            "prompts": prompts_digest(self.spec),
            "origin": self.origin,
            "label": self.label,
            "weights": self.weights,
            "files_format": self.format,
            "dtype": self.dtype,
            "positions": self.positions,
            "vocabulary": self.vocabulary,
            "lower_case": self.lower_case,
            "parameters": self.parameters,
            "agreement": self.agreement,
            "versions": dict(self.versions),
            "files": {
                name: {"bytes": (folder / name).stat().st_size, "digest": file_digest(folder / name)} for name in names
            },
        }
        written = json.dumps({**values, "digest": _own_digest(values)}, indent=2, ensure_ascii=True)
        (folder / MARK).write_text(written + "\n", "utf-8")


class ExportFolder(LocalModel):
    """A folder with `embrief-export.json`."""

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Return whether that file is there."""
        return (path / MARK).is_file()

    @cached_property
    def _read(self) -> tuple[Export, dict[str, tuple[int, str]]]:
        return read_export(self.path)

    @property
    def export(self) -> Export:
        """Return what the export says of itself, read once.

        Raises:
            ModelMismatchError: The file is damaged, or says what cannot be.
            NewerFormatError: A newer release wrote it.
        """
        return self._read[0]

    @property
    def origin(self) -> str:
        """Return what spaces call the model that was exported: its vectors are that model's."""
        return self.export.origin

    @property
    def label(self) -> str:
        """Return what its spaces call it for people."""
        return self.export.label

    @property
    def like(self) -> str | None:
        """Return the id of the model's record."""
        return self.export.record

    @property
    def prompts_from(self) -> Literal["folder", "record"]:
        """Return whether its prompts are recorded, or stand in the export."""
        return "folder" if self.export.record is None else "record"

    def check(self) -> None:
        """Refuse an export that lacks files, whose files have another size, or that says what cannot be."""
        _, files = self._read
        for name, (size, _) in files.items():
            try:
                found = self._inside(name).stat().st_size
            except OSError as error:
                raise WeightsUnavailableError(
                    f"{self.path} lacks {name}, or it cannot be read; copy the whole folder, or {_AGAIN}"
                ) from error
            if found != size:
                raise ModelMismatchError(
                    f"{self.path / name} has {found} bytes and had {size} when it was exported; {_AGAIN}"
                )

    def _inside(self, name: str) -> Path:
        file = self.path / name
        if file.resolve().parent != self.path.resolve():
            raise ModelMismatchError(f"{file} is a link that leads out of the folder; copy the file itself there")
        return file

    def stamp(self) -> Stamp:
        """Return names, sizes and times of all files that an export may have."""
        return _stamp(self.path)

    def check_unchanged(self, known: Stamp) -> None:
        """Refuse an export that was written again."""
        if changed := sorted({name for name, *_ in {*self.stamp()} ^ {*known}}):
            raise ModelMismatchError(
                f"{self.path} changed since its facts were read ({', '.join(changed)}); when all its files are "
                "written, make a new embedder or reranker"
            )

    def verify(self) -> None:
        """Refuse files that are not those that were exported. Reads all of them, once per process while they stay.

        Raises:
            WeightsUnavailableError: One is missing.
            ModelMismatchError: One was changed; the message names it.
        """
        self.check()
        _verify(self.path, self.stamp(), tuple((name, digest) for name, (_, digest) in self._read[1].items()))

    def weights(self, artifact: Artifact | None) -> str:
        """Return what names the weights of the model that was exported."""
        return self.export.weights

    def embedder(self, family: EmbedderFamily, like: EmbeddingSpec | None) -> EmbeddingSpec:
        """Describe the embedding model: by its record where it has one, else as the export says."""
        return cast("EmbeddingSpec", self._spec(EmbeddingSpec, like))

    def reranker(self, family: RerankerFamily, like: RerankerSpec | None) -> RerankerSpec:
        """Describe the reranker, likewise."""
        return cast("RerankerSpec", self._spec(RerankerSpec, like))

    def _spec(self, kind: type[ModelSpec], record: ModelSpec | None) -> ModelSpec:
        export = self.export
        if not isinstance(export.spec, kind):
            other, what = ("Reranker", "a reranker") if kind is EmbeddingSpec else ("Embedder", "an embedding model")
            raise WrongKindError(f"{self.path} is the export of {what}", use=f"{other}({str(self.path)!r})")
        if record is not None and record.id != export.record:
            raise ArgumentError(
                f"like={record.id!r} is for models whose files leave open what they are; {self.path} is an export of "
                f"{export.record or export.label or export.spec.id}"
            )
        if record is not None and prompts_digest(record) != prompts_digest(export.spec):
            raise ModelMismatchError(
                f"the prompts of {record.id} are recorded otherwise than when {self.path} was exported, so its vectors "
                f"would not be those of its space; {_AGAIN} with this release"
            )
        files = tuple(self._read[1])
        # Two quantisers make two models of one: what names the graph belongs to the fingerprint.
        graph = self._read[1][FILES[export.format][0]][1] if export.dtype != "float32" else ""
        return replace(
            record or export.spec,
            # The record may be of another commit than was exported.
            revision=export.weights if _COMMIT.fullmatch(export.weights) else "",
            folder=None,
            parameters=export.parameters,
            format=export.format,
            artifacts=(Artifact(export.format, "", graph, files, export.dtype),),
            defines_family=False,
            aliases=(),
            served_names=(),
        )


def read_export(folder: Path) -> tuple[Export, dict[str, tuple[int, str]]]:
    """Return what an export says of itself, and its files with their sizes in bytes and digests.

    Raises:
        WeightsUnavailableError: The file that says it is not there.
        ModelMismatchError: It is damaged, or says what cannot be.
        NewerFormatError: A newer release wrote it.
    """
    values = read_object(folder / MARK)
    if type(values.get("format")) is int and values["format"] > FORMAT:
        raise NewerFormatError(f"{values.file} was written by a newer release of embrief; upgrade embrief")
    if values.get("format") != FORMAT:
        values.refuse("format", str(FORMAT))
    if values.get("digest") != _own_digest({key: value for key, value in values.items() if key != "digest"}):
        raise ModelMismatchError(f"{values.file} was changed since it was written; {_AGAIN}")
    kinds: dict[Any, type[ModelSpec]] = {"embedder": EmbeddingSpec, "reranker": RerankerSpec}
    kind = kinds.get(text(values, "kind"))
    if kind is None:
        values.refuse("kind", "'embedder' or 'reranker'")
    spec = spec_from_json(part(values, "facts"), kind, str(folder))
    form = text(values, "files_format")
    if form not in FILES:
        values.refuse("files_format", " or ".join(map(repr, FILES)))
    if (dtype := text(values, "dtype")) not in DTYPES:
        values.refuse("dtype", " or ".join(map(repr, DTYPES)))
    record, origin, weights = values.text("record"), text(values, "origin"), text(values, "weights")
    if record is not None and record != spec.id:
        values.refuse("record", f"{spec.id!r}, the id among its facts")
    if origin != LOCAL and (origin != spec.id or not is_hub_id(origin)):
        values.refuse("origin", f"{LOCAL!r}, or the id of the model")
    if not _WEIGHTS.fullmatch(weights):
        values.refuse("weights", "a commit, or sha256: and 64 digits")
    export = Export(
        spec=spec,
        record=record,
        origin=origin,
        label=values.text("label") or "",
        weights=weights,
        format=cast("Any", form),
        dtype=dtype,
        positions=number(values, "positions", _MOST_TOKENS),
        vocabulary=number(values, "vocabulary", _MOST_TOKENS),
        lower_case=values.flag("lower_case") or False,
        parameters=number(values, "parameters", _MOST),
        agreement=values.number("agreement") or 0.0,
        versions={key: str(value) for key, value in values.within("versions").items()},
    )
    return export, _files(part(values, "files"), form)


def _files(values: JsonObject, form: str) -> dict[str, tuple[int, str]]:
    known = (*FILES[form], TOKENIZER)
    found: dict[str, tuple[int, str]] = {}
    for name in values:
        if name not in known:
            raise ModelMismatchError(
                f"{values.file} names the file {name[:80]!r}, and an export has {', '.join(known)} only; {_AGAIN}"
            )
        entry = part(values, name)
        digest = text(entry, "digest")
        if not _DIGEST.fullmatch(digest):
            entry.refuse("digest", "sha256: and 64 digits")
        found[name] = number(entry, "bytes", _MOST), digest
    if lacking := [name for name in (FILES[form][0], TOKENIZER) if name not in found]:
        raise ModelMismatchError(f"{values.file} does not name {lacking[0]}, without which there is no model; {_AGAIN}")
    return found


@reads_folder
def _stamp(folder: Path) -> Stamp:
    found = ((name, (folder / name).stat()) for name in sorted(ALL_FILES) if (folder / name).is_file())
    return tuple((name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in found)


def file_digest(file: Path) -> str:
    """Return `sha256:...` over a file, a second for one to two GB."""
    with file.open("rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()


@lru_cache(maxsize=64)
def _verify(folder: Path, known: Stamp, files: tuple[tuple[str, str], ...]) -> None:
    for name, digest in files:
        if file_digest(folder / name) != digest:
            raise ModelMismatchError(f"{folder / name} was changed since it was exported; {_AGAIN}")


def _own_digest(values: Mapping[str, Any]) -> str:
    written = json.dumps(values, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(written.encode()).hexdigest()
