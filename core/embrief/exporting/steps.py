"""The steps of an export: the original's results, the graph, its files, and the comparison of both."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from embrief.errors import ModelMismatchError, NotEnoughSpaceError
from embrief.exporting import graphs
from embrief.facts.prompts import Rendered, RenderedTexts, pair_template
from embrief.facts.specs import EmbeddingSpec, RerankerSpec
from embrief.files.exports import FILES, TOKENIZER, Export, read_export
from embrief.files.modules import lower_cases, transformer_folder
from embrief.files.spec_json import spec_to_json
from embrief.runtimes.base import LoadRequest, RunOptions
from embrief.runtimes.onnx import Onnx, OnnxRuntime
from embrief.runtimes.openvino import OpenVino, OpenVinoRuntime
from embrief.serving.jobs import Request

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from embrief.engine.graph import Graph
    from embrief.facades.embedder import Embedder
    from embrief.facades.reranker import Reranker
    from embrief.runtimes.exported import ExportedModel

LEAST_COSINE = {"float32": 0.9999, "int8": 0.9}
"""Below it, an export is not that model."""
MOST_APART = {"float32": 0.01, "int8": float("inf")}
"""Of log-odds, likewise."""
_LONGEST = 2048
"""Tokens of the longest text of the comparison: the graph holds the attention of a whole text at once."""
_SENTENCE = "Mars, known for its reddish appearance, is often referred to as the Red Planet. "
_QUERY = "which planet is red"

Probe = tuple[Rendered, int]
"""A text, and the tokens that are left of it."""


def write_export(
    facade: Embedder | Reranker,
    folder: Path,
    *,
    format: str,
    dtype: str,
    versions: Mapping[str, str],
    say: Callable[[str], None],
) -> Export:
    """Write an export into an empty folder; the file that says what it is comes last.

    Args:
        facade: The original, on the engine in float32.
        folder: Where to write.
        format: `"onnx"` or `"openvino"`.
        dtype: `"float32"` or `"int8"`.
        versions: Of what makes it.
        say: Called with a sentence at the beginning of each step.

    Raises:
        ModelMismatchError: The graph's results are not the original's.
        NotEnoughSpaceError: The disk is too small.
    """
    shared: Any = facade._shared
    spec: EmbeddingSpec | RerankerSpec = shared.spec
    say(f"running {spec.id} as it is")
    expected = _Expected(facade)
    source = shared.artifact_folder
    assert source is not None  # the engine reads files
    weights = shared.weights
    graph = graphs.graph_of(spec, source)
    size = graphs.size_of(graph)
    # Quantised or converted, there are two of it for a while.
    _check_space(folder, size * (2 if dtype == "int8" or format == "openvino" else 1) + 2**26)
    say(f"writing {size / 2**20:.0f} MiB as {format}")
    # Where no record has them, the table and the layers are all that there is.
    parameters = spec.parameters or size // 4
    _write_graph(graph, folder, format, dtype, say)
    base = transformer_folder(source)
    shutil.copyfile(base / TOKENIZER, folder / TOKENIZER)
    export = Export(
        spec=spec,
        record=spec.id if shared.recorded is not None else None,
        origin=shared.origin,
        label=shared.label,
        weights=weights,
        format=cast("Any", format),
        dtype=dtype,
        positions=graph.positions,
        vocabulary=graph.model.vocabulary,
        lower_case=lower_cases(source),
        parameters=parameters,
        agreement=0.0,
        versions=versions,
    )
    del graph
    say("comparing it with the original")
    export = replace(export, agreement=_compare(_open(folder, export), expected, dtype))
    if shared.local is not None:
        shared.local.check_unchanged(shared._known)
    export.write(folder)
    # What cannot be opened again is no export.
    if spec_to_json(read_export(folder)[0].spec) != spec_to_json(spec):
        raise ModelMismatchError(f"the facts about {spec.id} cannot be written down, so nothing was; please report it")
    return export


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise NotEnoughSpaceError(
            f"the export needs {needed / 2**30:.1f} GiB in {folder.parent}, where {free / 2**30:.1f} GiB are free; "
            "make room, or name a folder elsewhere"
        )


def _write_graph(graph: Graph, folder: Path, format: str, dtype: str, say: Callable[[str], None]) -> None:
    if format == "onnx" and dtype == "float32":
        graphs.write_onnx(graph, folder / FILES["onnx"][0])
        return
    # In a folder of its own: what is left of it goes with it.
    between = folder / "between"
    between.mkdir()
    file = between / FILES["onnx"][0]
    graphs.write_onnx(graph, file)
    if format == "onnx":
        say("quantising")
        graphs.quantise(file, folder / FILES["onnx"][0])
    else:
        say("converting")
        graphs.convert(file, folder / FILES["openvino"][0], int8=dtype == "int8")
    shutil.rmtree(between)


def _open(folder: Path, export: Export) -> ExportedModel:
    request = LoadRequest(export.spec, folder, "cpu", export.dtype)
    if export.format == "onnx":
        return OnnxRuntime().open(replace(request, options=Onnx()), export)
    return OpenVinoRuntime().open(replace(request, options=OpenVino()), export)


class _Expected:
    """What the original gives for the texts of the comparison."""

    def __init__(self, facade: Embedder | Reranker) -> None:
        shared: Any = facade._shared
        self.spec: EmbeddingSpec | RerankerSpec = shared.spec
        self.kind: Any = "dense" if isinstance(self.spec, EmbeddingSpec) else "score"

        def run(text: Rendered, limit: int) -> Any:
            return shared.served.run(Request([text], RunOptions(max_tokens=limit, kinds=(self.kind,))))

        limit = min(self.spec.max_tokens, self.spec.context, _LONGEST)
        short = [(text, limit) for text in _texts(self.spec, ["a", "the red planet", "火星 🙂", _SENTENCE])]
        # What stands around a text counts.
        around = int(run(*short[0]).token_counts[0])
        lengths = sorted({min(limit, around + length) for length in (3, 300, 600, limit)})
        texts = [f"{number}. " + _SENTENCE * (length // 10 + 1) for number, length in enumerate(lengths)]
        self.probes: list[Probe] = [*short, *zip(_texts(self.spec, texts), lengths, strict=True)]
        self.rows = np.concatenate([run(*probe).array(self.kind) for probe in self.probes])


def _texts(spec: EmbeddingSpec | RerankerSpec, texts: list[str]) -> Sequence[Rendered]:
    if isinstance(spec, RerankerSpec):
        return RenderedTexts(texts, *pair_template(_QUERY, spec, None))
    return [Rendered("", text) for text in texts]


def _compare(model: ExportedModel, expected: _Expected, dtype: str) -> float:
    """Return the least cosine with the original, or the most that log-odds are apart.

    Each text alone, and all together but for the longest, as one batch of very different lengths.

    Raises:
        ModelMismatchError: The export is not that model.
    """
    rows = [model.prepare([text], RunOptions(max_tokens=limit)).rows[0] for text, limit in expected.probes]
    alone = np.concatenate([_array(model, [row]) for row in rows])
    together = _array(model, rows[:-1])
    model.close()
    found, due = np.concatenate([alone, together]), np.concatenate([expected.rows, expected.rows[:-1]])
    if isinstance(expected.spec, RerankerSpec):
        apart = float(np.abs(found - due).max())
        if not apart <= MOST_APART[dtype]:
            raise ModelMismatchError(
                f"the export of {expected.spec.id} gives log-odds that are up to {apart:.3g} from the original's, and "
                f"{MOST_APART[dtype]} at most would do, so nothing was written; please report it"
            )
        return apart
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(due, axis=1)
    least = float(((found * due).sum(1) / lengths).min())
    if not least >= LEAST_COSINE[dtype]:
        raise ModelMismatchError(
            f"the export of {expected.spec.id} in {dtype} gives vectors whose least cosine with the original's is "
            f"{least:.6f}, and {LEAST_COSINE[dtype]} is due, so nothing was written"
        )
    return least


def _array(model: ExportedModel, rows: Sequence[Any]) -> NDArray[Any]:
    (values,) = model.run_rows(rows, ()).values()
    found: NDArray[Any] = cast("Any", values).array
    return found
