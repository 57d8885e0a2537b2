"""The runtime `mistralrs`: mistral.rs in this process, from its wheel; Qwen3 and EmbeddingGemma on the CPU.

Token ids go in, so that texts are read, counted and cut as everywhere else. It never sees the model's own folder but
one of links, with the few settings that it reads written as it means them; what it cannot be told is refused. What it
makes of its files: mistralrs-core 0.9, `embedding_models` and `pipeline/embedding.rs`.

Discovery imports this file: what is heavy stays inside functions.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from embrief.errors import ArgumentError, BackendError, ItemFailedError, ModelMismatchError
from embrief.facts.specs import EmbeddingSpec
from embrief.runtimes.base import Ask, Batched, LoadRequest, Offer, Prepared, Refusal, RunOptions, Runtime
from embrief.system.installed import install_command, installed_version

if TYPE_CHECKING:
    from types import ModuleType

    from embrief.engine.description import TextModel
    from embrief.facts.prompts import Rendered
    from embrief.facts.specs import Kind, ModelSpec, Pooling
    from embrief.facts.values import Values
    from embrief.files.model_files import ModelFiles
    from embrief.files.tensors import StoredTensor
    from embrief.runtimes.base import Model, Token
    from embrief.runtimes.torch_common import IdRow

_ARCHITECTURES = {"qwen3": "Qwen3Embedding", "gemma3_text": "EmbeddingGemma"}
_FORMATS = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_QUANTISED = (
    "q8_0", "q8_1", "q8k", "q6k", "q5k", "q5_1", "q5_0", "q4k", "q4_1", "q4_0", "q3k", "q2k",
    "hqq8", "hqq4", "afq8", "afq6", "afq4", "afq3", "afq2", "fp8", "f8q8", "mxfp4",
)  # fmt: skip
"""What its wheel quantises to as it loads, all in its own names; activations stay in float32 between the layers."""
_MODULES = {"Transformer", "Pooling", "Dense", "Normalize", "Dropout"}
# Others it takes and then fails on, text by text.
_STORED = {"F32", "F16", "BF16"}
_MOST_POSITIONS = 2**20
"""It makes a table of all positions as it loads; a number that is a mistake would end the process."""
_BATCH_TOKENS = 1024
# It has threads of its own that no child of this process has: there it waits for them for ever, or crashes.
_lock = threading.Lock()
_used_in: int | None = None
_left_behind: list[Any] = []


class MistralRs(Runtime):
    """mistral.rs, from its wheel for CPUs."""

    name = "mistralrs"
    requires = ("mistralrs", "tokenizers")
    install = install_command("mistralrs")
    # It runs nothing that the others do not, and is no faster: whoever wants it says so.
    preference = -20
    devices = ("cpu",)
    dtypes = (*_FORMATS, *_QUANTISED)

    def offer(self, spec: ModelSpec, ask: Ask) -> Offer | Refusal:
        """Offer embedding models of two architectures, where their files ask for nothing that it does not do."""
        if spec.elsewhere is not None:
            return Refusal("loads models from their files")
        if not isinstance(spec, EmbeddingSpec):
            return Refusal("runs embedding models, and no rerankers")
        if spec.architecture not in _ARCHITECTURES:
            return Refusal(f"runs {' and '.join(_ARCHITECTURES)}, not {spec.architecture!r}")
        if spec.pooling not in ("last", "mean"):
            return Refusal(f"has no pooling {spec.pooling!r}")
        if ask.files is not None and (reason := _refusal(ask.files, spec)) is not None:
            return Refusal(reason, "files")
        if ask.final:
            _check_build()
        dtype = "float32" if ask.dtype == "auto" else ask.dtype
        # A mean comes as a sum, of which only the direction is right.
        return Offer(device="cpu", dtype=dtype, artifact=spec.safetensors, normalizes=True)

    def load(self, request: LoadRequest) -> Model:
        """Load a model from its safetensors."""
        return MistralRsEmbedder(request)


def _check_build() -> None:
    """Refuse a build that would choose a GPU by itself: its wheel has no say in that.

    Raises:
        ArgumentError: What `import mistralrs` finds is not the distribution `mistralrs`.
    """
    if installed_version("mistralrs") is None:
        raise ArgumentError(
            "backend='mistralrs' runs on the CPU and knows the distribution 'mistralrs'; another one, such as "
            "mistralrs-cuda, is installed in its place. Install mistralrs, or use backend='engine' for a GPU"
        )


def _refusal(files: ModelFiles, spec: EmbeddingSpec) -> str | None:
    """Say why mistral.rs does not make the model's vectors from these files, `None` if it does.

    It reads few keys of config.json and skips all others, so whatever those would change has to be found here.
    """
    from embrief.engine.description import UnsupportedError, describe
    from embrief.files.modules import after_pooling

    if "auto_map" in files.config:
        return "runs no code that comes with a model"
    try:
        model = describe(files.config)
    except UnsupportedError as error:
        return str(error)
    if (reason := _config_refusal(files, model)) is not None:
        return reason
    if unknown := sorted(set(files.kinds) - _MODULES):
        return f"has no module {unknown[0]}"
    kinds = [module.kind for module in after_pooling(files.modules or ())]
    if kinds.count("Dense") < files.kinds.count("Dense"):
        return "has Dense layers behind the pooling only"
    for config in files.module_config("Dense"):
        activation = (config.text("activation_function") or "Tanh").rpartition(".")[2]
        if activation != "Identity":
            return f"has no Dense layer with {activation}"
        if config.flag("use_residual"):
            return "has no Dense layer with use_residual"
        # As in sentence-transformers, one that does not say so has a bias.
        if spec.pooling == "mean" and kinds[0] != "Normalize" and config.flag("bias") is not False:
            return "takes the sum for the mean, and a Dense layer with a bias would not get the same"
    if not (files.base / "tokenizer.json").is_file():
        return "reads tokenizer.json, which is not there"
    return None


def _config_refusal(files: ModelFiles, model: TextModel) -> str | None:
    if not model.layers:
        return "runs models with layers, and config.json says that there are none"
    kind = model.layers[0]
    positions = files.context
    if not positions or positions > _MOST_POSITIONS:
        return f"holds a table of all positions, and config.json says max_position_embeddings={positions}"
    if kind.head_dim % 2 or not kind.kv_heads or model.heads % kind.kv_heads:
        return f"does not run {model.heads} heads of {kind.head_dim} values with {kind.kv_heads} of keys"
    if files.architecture == "gemma3_text":
        if _every(model) is None:
            return "has sliding windows in all layers but every n-th, and these layer_types are others"
        if not float(files.config.number("query_pre_attn_scalar") or 0).is_integer():
            return f"reads whole numbers as query_pre_attn_scalar, not {files.config['query_pre_attn_scalar']!r}"
    return None


def _every(model: TextModel) -> int | None:
    """Return n where every n-th layer sees the whole text and all others a window, `None` for other patterns."""
    whole = [kind.window is None for kind in model.layers]
    steps = range(1, len(whole) + 2)
    return next((n for n in steps if whole == [(index + 1) % n == 0 for index in range(len(whole))]), None)


def _config(files: ModelFiles, model: TextModel) -> dict[str, Any]:
    """Return config.json as mistral.rs reads it: the older names of keys, and windows as the reach to one side.

    transformers 5 keeps the bases of rotary positions inside `rope_parameters`, where it does not look; a Gemma's
    `sliding_window` is the width of the whole window, which it would take for that of one half.
    """
    config, kind = files.config, model.layers[0]
    written = {
        "model_type": files.architecture,
        "vocab_size": model.vocabulary,
        "hidden_size": model.hidden_size,
        "intermediate_size": model.intermediate_size,
        "num_hidden_layers": len(model.layers),
        "num_attention_heads": model.heads,
        "num_key_value_heads": kind.kv_heads,
        "head_dim": kind.head_dim,
        "max_position_embeddings": files.context,
        "rms_norm_eps": model.epsilon,
    }
    bases = {layer.window is not None: layer.rope_theta for layer in model.layers}
    if files.architecture == "qwen3":
        return written | {
            "architectures": ["Qwen3ForCausalLM"],
            "hidden_act": config["hidden_act"],
            "rope_theta": kind.rope_theta,
            "sliding_window": None,
            "use_sliding_window": False,
            "max_window_layers": len(model.layers),
            "tie_word_embeddings": True,
        }
    return written | {
        "architectures": ["Gemma3TextModel"],
        "attention_bias": False,
        "hidden_activation": config["hidden_activation"],
        # One that no layer uses may be anything.
        "rope_theta": bases.get(False, 1_000_000.0),
        "rope_local_base_freq": bases.get(True, 10_000.0),
        # It sees those less than this many places away, as `LayerKind.window` has it.
        "sliding_window": next((layer.window for layer in model.layers if layer.window is not None), 1),
        "sliding_window_pattern": _every(model),
        "query_pre_attn_scalar": int(config["query_pre_attn_scalar"]),
        "use_bidirectional_attention": True,
    }


def _check_tensors(stored: dict[str, StoredTensor], model: TextModel, label: str) -> None:
    """Refuse weights that are not those of config.json: mistral.rs skips what it has no place for.

    Raises:
        ModelMismatchError: Tensors are missing or surplus, or have another shape, format or prefix.
    """
    from embrief.files.tensors import BUFFERS_AND_HEADS
    from embrief.runtimes.torch_common import check_tensor_names

    if "embed_tokens.weight" not in stored and any(name.endswith("embed_tokens.weight") for name in stored):
        raise ModelMismatchError(
            f"mistral.rs reads tensors named 'embed_tokens.weight' and so on, and those of {label} have a prefix; use "
            "backend='engine', or save the model again with AutoModel.from_pretrained(...).save_pretrained(...)"
        )
    due = _shapes(model)
    check_tensor_names([*due.keys() - stored.keys()], [*stored.keys() - due.keys()], label, unused=BUFFERS_AND_HEADS)
    for name, shape in due.items():
        if stored[name].shape != shape:
            raise ModelMismatchError(
                f"{name!r} in the weights of {label} has shape {stored[name].shape}, by config.json it would be "
                f"{shape}; these are not the weights of this model"
            )
    if others := sorted(name for name in due if stored[name].dtype not in _STORED):
        raise ModelMismatchError(
            f"mistral.rs computes with weights stored as {', '.join(sorted(_STORED))}, and {others[0]!r} of {label} is "
            f"stored as {stored[others[0]].dtype}; use backend='engine', or save the model again in float32"
        )


def _shapes(model: TextModel) -> dict[str, tuple[int, ...]]:
    """Return the tensors of a model and their shapes."""
    width, inner, kind = model.hidden_size, model.intermediate_size, model.layers[0]
    layer: dict[str, tuple[int, ...]] = {
        **dict.fromkeys(model.norms.values(), (width,)),
        **dict.fromkeys(("self_attn.q_norm", "self_attn.k_norm"), (kind.head_dim,)),
        "self_attn.q_proj": (model.heads * kind.head_dim, width),
        **dict.fromkeys(("self_attn.k_proj", "self_attn.v_proj"), (kind.kv_heads * kind.head_dim, width)),
        "self_attn.o_proj": (width, model.heads * kind.head_dim),
        **dict.fromkeys(("mlp.gate_proj", "mlp.up_proj"), (inner, width)),
        "mlp.down_proj": (width, inner),
    }
    return {
        "embed_tokens.weight": (model.vocabulary, width),
        "norm.weight": (width,),
        **{
            f"layers.{index}.{name}.weight": shape
            for index in range(len(model.layers))
            for name, shape in layer.items()
        },
    }


@contextmanager
def _shadow(files: ModelFiles, model: TextModel, pooling: Pooling | None) -> Iterator[Path]:
    """Give the model as a folder that mistral.rs reads rightly, for as long as it loads.

    Big files are links to the model's own; where the system allows no links, copies.
    """
    from embrief.files.folders import SINGLE, weight_files
    from embrief.files.modules import after_pooling

    with tempfile.TemporaryDirectory(prefix="embrief-mistralrs-", ignore_cleanup_errors=True) as scratch:
        place = Path(scratch)
        _write(place / "config.json", _config(files, model))
        _show(files.base / "tokenizer.json", place / "tokenizer.json")
        shards = weight_files(files.base)
        for file in shards:
            _show(file, place / file.relative_to(files.base))
        if shards != [files.base / SINGLE]:
            names = [file.relative_to(files.base).as_posix() for file in shards]
            _write(place / f"{SINGLE}.index.json", {"metadata": {}, "weight_map": {name: name for name in names}})
        chosen = "lasttoken" if pooling == "last" else "mean_tokens"
        modes = {f"pooling_mode_{mode}": mode == chosen for mode in _MODES}
        _write(
            place / "1_Pooling" / "config.json",
            {"word_embedding_dimension": model.hidden_size, "include_prompt": True, **modes},
        )
        modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
        dense = iter(files.module_config("Dense"))
        for number, module in enumerate(after_pooling(files.modules or ()), start=2):
            modules.append((module.kind, f"{number}_{module.kind}"))
            if module.kind == "Dense":
                own = next(dense)
                written = {key: own[key] for key in ("in_features", "out_features", "bias") if key in own}
                written = {"bias": True, **written, "activation_function": "torch.nn.modules.linear.Identity"}
                _write(place / modules[-1][1] / "config.json", written)
                _show(files.folder / module.path / SINGLE, place / modules[-1][1] / SINGLE)
        _write(
            place / "modules.json",
            [
                {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
                for number, (kind, path) in enumerate(modules)
            ],
        )
        yield place


_MODES = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")


def _write(file: Path, value: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value), "utf-8")


def _show(file: Path, place: Path) -> None:
    """Let a file be seen in another place."""
    file = file.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        place.symlink_to(file)
    except OSError:
        try:
            os.link(file, place)
        except OSError:
            # Windows without the right to make links, and another drive.
            shutil.copyfile(file, place)


def _import_quietly() -> ModuleType:
    """Import mistralrs, which prints its log on standard output unless it is told otherwise at this moment.

    Where the variable RUST_LOG is set, it stays as it is.
    """
    quiet = "mistralrs" not in sys.modules and "RUST_LOG" not in os.environ
    if quiet:
        os.environ["RUST_LOG"] = "off"
    try:
        import mistralrs  # noqa: F401
    finally:
        if quiet:
            os.environ.pop("RUST_LOG", None)
    return sys.modules["mistralrs"]


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn what comes out of mistral.rs into an error of this library.

    Raises:
        BackendError: It failed, or one of its threads ended in a panic.
    """
    try:
        yield
    except BaseException as error:
        # A panic is no `Exception`, and its class can be imported from nowhere.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        said = (str(error) or repr(error)).splitlines()[0]
        raise BackendError(
            f"mistral.rs failed to {what}: {said}. With RUST_LOG=error set before the start it says more, on standard "
            "output"
        ) from error


class Runner:
    """A model inside mistral.rs: token ids in, vectors of length 1 out. Not for two threads at once."""

    def __init__(self, files: ModelFiles, label: str, *, pooling: Pooling | None, dtype: str) -> None:
        """Load a model.

        Args:
            files: Its small files, of which `offer` refuses nothing.
            label: Its name, for messages.
            pooling: `"last"` or `"mean"`.
            dtype: A number format of `MistralRs.dtypes`.

        Raises:
            BackendError: mistral.rs does not load it, or this process is a child of one that has used it.
            ModelMismatchError: The weights are not those of config.json.
        """
        global _used_in
        from embrief.engine.description import describe
        from embrief.files.folders import check_weights, stored_tensors

        self._label = label
        check_weights(files.folder)
        model = describe(files.config)
        _check_tensors(stored_tensors(files.base), model, label)
        with _lock:
            _used_in = _used_in or os.getpid()
        self._runner: Any = None
        self._check_process()
        with _told(f"load {label}"):
            mistralrs = _import_quietly()
            self._request: Any = mistralrs.EmbeddingRequest
            with _shadow(files, model, pooling) as place:
                self._runner = mistralrs.Runner(
                    which=mistralrs.Which.Embedding(
                        model_id=str(place),
                        arch=getattr(mistralrs.EmbeddingArchitecture, _ARCHITECTURES[files.architecture]),
                        dtype=getattr(mistralrs.ModelDType, _FORMATS.get(dtype, "F32")),
                    ),
                    token_source="none",
                    in_situ_quant=dtype if dtype not in _FORMATS else None,
                )

    def _check_process(self) -> None:
        if os.getpid() != _used_in:
            raise BackendError(
                f"{self._label} cannot run in this process: it was forked from one that has used mistral.rs, whose "
                "threads do not come along. Start processes with 'spawn' or 'forkserver', or use backend='engine'"
            )

    def embed(self, rows: Sequence[IdRow]) -> Any:
        """Return (n, width) float32, in the order of the rows.

        Raises:
            BackendError: It failed.
        """
        import numpy as np

        self._check_process()
        # It runs rows of one length together, and none beside a longer one: filled up, it would be pooled with what
        # fills it.
        with _told("embed"):
            answer = self._runner.send_embedding_request(self._request([row.tolist() for row in rows]))
        vectors = np.array(answer, np.float32)
        # Not by its own module, which computes in the number format: lengths are 1.03 then in bfloat16.
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(lengths > 0, lengths, 1)

    def close(self) -> None:
        """Free the model."""
        if self._runner is not None and os.getpid() != _used_in:
            # What it would wait for is not there.
            _left_behind.append(self._runner)
        self._runner = None


class MistralRsEmbedder(Batched):
    """An embedding model in mistral.rs."""

    padded = False
    batch_tokens = _BATCH_TOKENS

    def __init__(self, request: LoadRequest) -> None:
        # Inside functions, here and below: discovery needs neither numpy nor tokenizers.
        from embrief.engine.tokens import TextTokenizer
        from embrief.files.model_files import read_files
        from embrief.files.modules import lower_cases
        from embrief.runtimes import torch_common

        spec = cast("EmbeddingSpec", request.spec)
        files = read_files(cast("Path", request.folder))
        if (reason := _refusal(files, spec)) is not None:
            raise ModelMismatchError(f"{spec.id} does not run on mistral.rs, which {reason}; leave backend out")
        self._label = spec.id
        self._tokenizer = TextTokenizer(files.base, lower_case=lower_cases(files.folder))
        torch_common.check_named_tokens(files.folder, self._tokenizer)
        vocabulary = files.config.count("vocab_size") or 0
        beyond = self._tokenizer.beyond(vocabulary)
        torch_common.check_vocabulary(beyond, spec.id)
        self._rows = vocabulary if beyond else None
        self._tokenizer.check_final_token(spec.final_token, spec.id)
        self._runner = Runner(files, spec.id, pooling=spec.pooling, dtype=request.dtype)
        if (width := self._runner.embed(self._tokenizer.whole(["probe"])).shape[1]) != spec.dim:
            raise ModelMismatchError(f"{spec.id} gives {width} values per vector, its record says {spec.dim}")

    def prepare(self, inputs: Sequence[Rendered], options: RunOptions) -> Prepared:
        """Return the token ids of each text."""
        from embrief.runtimes import torch_common

        tokens = torch_common.tokenize(self._tokenizer.whole, self._tokenizer.end, inputs, options)
        if empty := [index for index, row in enumerate(tokens.ids) if not len(row)]:
            raise ItemFailedError(
                f"the text at index {empty[0]} has no tokens and {self._label} adds none; leave it out", index=empty[0]
            )
        if self._rows is not None:
            torch_common.check_known(tokens.ids, self._rows, self._label)
        return Prepared(tokens.ids, tokens.sizes, tokens.counts, tokens.truncated)

    def tokenize(self, inputs: Sequence[Rendered], options: RunOptions) -> list[list[Token]]:
        """Return the tokens of texts."""
        from embrief.runtimes.marking import marked_texts

        return marked_texts(self._tokenizer, inputs)

    def run_rows(self, rows: Sequence[IdRow], kinds: tuple[Kind, ...]) -> dict[Kind, Values]:
        """Return the vector of each row, of length 1."""
        from embrief.facts.values import Dense

        return {"dense": Dense(self._runner.embed(rows))}

    def close(self) -> None:
        """Free the weights."""
        self._runner.close()
