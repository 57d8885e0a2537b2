"""A model's weights as one module, and that module as an ONNX file."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING

from embrief.engine.description import describe
from embrief.facts.specs import EmbeddingSpec, RerankerSpec
from embrief.files.exports import IDS, LENGTHS, RESULT
from embrief.files.json_files import read_object
from embrief.files.modules import lower_cases, transformer_folder
from embrief.files.tensors import BUFFERS_AND_HEADS

if TYPE_CHECKING:
    from pathlib import Path

    from embrief.engine.graph import Graph
    from embrief.facts.specs import ModelSpec

INLINE = 2**30
"""Bytes of weights up to which they stand in the ONNX file itself. Protobuf ends at twice as many."""
_OPSET = 20
_BLOCK = 32
_INT8_PRODUCTS = 4
"""ONNX Runtime's word for products of whole numbers of 8 bits, where the processor has them."""


def graph_of(spec: ModelSpec, folder: Path, *, without: Collection[str] = ()) -> Graph:
    """Read a model that the engine runs.

    Args:
        spec: Its facts.
        folder: Its safetensors and what is beside them.
        without: Kinds of modules behind the pooling that are left out: for a comparison with what others leave out.

    Raises:
        ModelMismatchError: The weights are not those of the files beside them.
    """
    # Inside functions, here and below: torch is heavy.
    from embrief.engine.checkpoint import Checkpoint
    from embrief.engine.graph import Graph
    from embrief.engine.heads import ScoreHead, VectorHead
    from embrief.engine.tokens import TextTokenizer
    from embrief.runtimes.engine import relevance

    base = transformer_folder(folder)
    model = describe(read_object(base / "config.json"))
    checkpoint = Checkpoint(base, spec.id)
    pooling = spec.pooling if isinstance(spec, EmbeddingSpec) else "last"
    projection = None
    if (own := model.projection) is not None:
        (projection,) = checkpoint.read({own.tensor: (own.width, model.hidden_size)})
    graph = Graph(model, checkpoint, mean=pooling == "mean", positions=spec.context).eval()
    if isinstance(spec, EmbeddingSpec):
        assert pooling is not None  # the engine offers no other
        graph.head = VectorHead(folder, pooling, model.hidden_size, "cpu", projection, without=without).finish
        checkpoint.check_all_read(unused=BUFFERS_AND_HEADS, other_parts=model.other_parts)
    else:
        assert isinstance(spec, RerankerSpec)
        tokenizer = TextTokenizer(base, lower_case=lower_cases(folder))
        graph.head = ScoreHead(relevance(spec, folder, checkpoint, tokenizer, model), "cpu")
    return graph


def write_onnx(graph: Graph, file: Path) -> None:
    """Write a module as an ONNX file that takes any number of texts of any length, also one text of one token.

    Args:
        graph: The module.
        file: The file; more than `INLINE` bytes of weights are written beside it, as `<name>.data`.
    """
    import torch

    example = torch.tensor([[1, 2, 3, 4, 5]] * 3), torch.tensor([5, 4, 3])
    texts = torch.export.Dim("texts", min=1, max=2**16)
    tokens = torch.export.Dim("tokens", min=1, max=graph.positions)
    with torch.no_grad(), _quietly():
        program = torch.onnx.export(
            graph,
            example,
            dynamo=True,
            dynamic_shapes=({0: texts, 1: tokens}, {0: texts}),
            input_names=[IDS, LENGTHS],
            output_names=[RESULT],
            opset_version=_OPSET,
            verbose=False,
        )
        assert program is not None
        program.save(str(file), external_data=size_of(graph) > INLINE)


def size_of(graph: Graph) -> int:
    """Return the bytes of a module's weights."""
    return sum(buffer.nbytes for buffer in graph.buffers())


def quantise(file: Path, target: Path) -> None:
    """Write an ONNX file whose products have weights of 8 bits, with a factor for each 32 of them in a row.

    The table of token vectors stays as it is. What goes into a product is rounded a few values of one token at a time:
    with one factor for a whole batch, as the library's dynamic quantiser has it, a text's vector would depend on the
    texts beside it.

    Args:
        file: The file in float32.
        target: The file to write; more than `INLINE` bytes of weights are written beside it, as `<name>.data`.
    """
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    with _quietly():
        how = DefaultWeightOnlyQuantConfig(block_size=_BLOCK, is_symmetric=True, bits=8, accuracy_level=_INT8_PRODUCTS)
        quantiser = MatMulNBitsQuantizer(onnx.load(file), algo_config=how)
        quantiser.process()
        quantiser.model.save_model_to_file(str(target), use_external_data_format=_bytes(file) > INLINE)


def convert(file: Path, target: Path, *, int8: bool) -> None:
    """Write an ONNX file as OpenVINO's own, in float32 or with weights of 8 bits, a factor for each row of a matrix.

    Args:
        file: The ONNX file.
        target: The `.xml` file; its weights lie beside it.
        int8: Whether weights have 8 bits. The table of token vectors has not: it loses most, and costs no time.
    """
    import openvino

    with _quietly():
        model = openvino.convert_model(file)
        if int8:
            import nncf

            table = nncf.IgnoredScope(types=["Gather"], validate=False)
            model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM, ignored_scope=table)
        openvino.save_model(model, target, compress_to_fp16=False)


def _bytes(file: Path) -> int:
    return sum(part.stat().st_size for part in file.parent.iterdir() if part.name.startswith(file.name))


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep what exporters print and log of their progress off a program's output."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
