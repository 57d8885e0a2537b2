"""modules.json and the files of its modules: which keys are honoured, which are harmless; all others refuse.

A key that sentence-transformers would honour and this library would not makes other vectors under a name that looks
right, so nothing is skipped in silence. What sentence-transformers reads: its `Module.load` methods, release 6.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from embrief.errors import ModelMismatchError
from embrief.files.config_keys import WITH_PICTURES, architecture
from embrief.files.json_files import LARGE, OTHERWISE, JsonObject, optional_object, read_json, read_objects
from embrief.files.tokenizer_files import rebuilt

Rule = Callable[[JsonObject, str], object]
"""Passes a key whose value is fine, and raises `ModelMismatchError` for any other."""

# In the order in which they are looked for; one that is empty does not count.
_TRANSFORMER_FILES = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_OWN_PACKAGE = "sentence_transformers."
# Run by sentence-transformers alone, which makes of their files what it likes.
_UNTOUCHED = ("CNN", "LSTM")
# Files that foreign code may read, and of which what counts is in the digest anyway.
_COUNTED = ("config.json", "modules.json", "config_sentence_transformers.json", "tokenizer.json", "vocab.json")


@dataclass(frozen=True, slots=True)
class Module:
    """One entry of modules.json."""

    type: str
    """Its class, with the package."""
    path: str
    """Its folder, seen from the model's; empty for that itself."""

    @property
    def kind(self) -> str:
        """Return the name of its class."""
        return self.type.rpartition(".")[2]

    @property
    def foreign(self) -> bool:
        """Whether its code is not part of sentence-transformers."""
        return not self.type.startswith(_OWN_PACKAGE)


def read_modules(folder: Path) -> tuple[Module, ...] | None:
    """Return the modules in modules.json in the order in which they run, `None` without that file.

    Raises:
        ModelMismatchError: The file is not what sentence-transformers writes, or leads out of the folder.
    """
    file = folder / "modules.json"
    if not file.exists():
        return None
    return tuple(_module(entry, folder) for entry in read_objects(file))


def _module(entry: JsonObject, folder: Path) -> Module:
    kind, path = entry.text("type"), entry.text("path")
    if kind is None or path is None:
        entry.refuse("type" if kind is None else "path", "a string")
    # A link to another folder is no better; the files inside may be links, as they are in the cache of the hub.
    if not stays_inside(path) or not (folder / path).resolve().is_relative_to(folder.resolve()):
        entry.refuse("path", "a folder inside the model's")
    return Module(kind, path)


def stays_inside(path: str) -> bool:
    """Return whether a path in a file leads to where the file is or below, in the words of any system."""
    parts = PureWindowsPath(path)
    return not parts.anchor and ".." not in parts.parts and "\0" not in path


def transformer_folder(folder: Path) -> Path:
    """Return where config, tokenizer and weights are: the folder itself, or that of its Transformer module."""
    for module in read_modules(folder) or ():
        if module.kind == "Transformer":
            return folder / module.path
    return folder


def transformer_settings(folder: Path) -> JsonObject:
    """Return what sentence-transformers keeps about the Transformer module, from whichever of its files is there."""
    base = transformer_folder(folder)
    found = (optional_object(base / name) for name in _TRANSFORMER_FILES)
    return next((settings for settings in found if settings), JsonObject({}, base / _TRANSFORMER_FILES[0]))


def lower_cases(folder: Path) -> bool:
    """Return whether texts are put into lower case before anything else."""
    return bool(transformer_settings(folder).flag("do_lower_case"))


def after_pooling(modules: tuple[Module, ...]) -> list[Module]:
    """Return what happens to a pooled vector before it is cut and normalised, which is the library's own."""
    places = [place for place, module in enumerate(modules) if module.kind == "Pooling"]
    # Dropout is for training.
    rest = [module for module in modules[places[0] + 1 :] if module.kind != "Dropout"] if places else []
    while rest and rest[-1].kind == "Normalize":
        rest.pop()
    return rest


def _number(path: str) -> tuple[int, str]:
    """Return what sorts the folders `2_Dense` and `10_Dense` as sentence-transformers numbers them."""
    number = path.partition("_")[0]
    return int(number) if number.isdecimal() else -1, path


def unusual(folder: Path) -> dict[str, Any]:
    """Return what these files say that moves a vector and is not so in the layout that models are published in.

    That layout is Transformer, Pooling, Dense layers in the order of their folders' names, and Normalize.
    """
    found: dict[str, Any] = {}
    modules = read_modules(folder) or ()
    rest = after_pooling(modules)
    if any(module.kind != "Dense" for module in rest) or rest != sorted(rest, key=lambda module: _number(module.path)):
        found["after_pooling"] = [[module.kind, module.path] for module in rest]
    for module in modules:
        if module.foreign or (module in rest and module.kind in _UNTOUCHED):
            counted = _COUNTED if module.foreign else ()
            files = sorted(file for file in (folder / module.path).glob("*.json") if file.name not in counted)
            if files:
                found[module.path] = [[file.name, read_json(file, limit=LARGE)] for file in files]
    if lower_cases(folder):
        found["do_lower_case"] = True
    if changed := rebuilt(transformer_folder(folder)):
        found["normalizer"] = changed
    return found


def check_modules(folder: Path, *, trusted: bool) -> None:
    """Refuse a folder whose modules, or whose files about them, ask for what no runtime here does.

    Args:
        folder: The model.
        trusted: Whether modules of other packages than sentence-transformers may be named.

    Raises:
        ModelMismatchError: The message has the key, its value, the file and what to do.
    """
    modules = read_modules(folder)
    if modules is not None:
        for entry in read_objects(folder / "modules.json"):
            _check(entry, _ENTRY)
        for module in modules:
            if module.foreign and not trusted:
                raise ModelMismatchError(
                    f"{folder} wants to run the module {module.type!r}, which is not part of sentence-transformers; "
                    "if you have read its code, pass trust_remote_code=True"
                )
        if any(module.foreign for module in modules):
            # What foreign code makes of its files is its own affair.
            return
        _check_order(folder, modules)
        for module in modules:
            if module.kind in _MODULES:
                _check(optional_object(folder / module.path / "config.json"), _MODULES[module.kind])
    kinds = {module.kind for module in modules or ()}
    config = optional_object(transformer_folder(folder) / "config.json")
    settings = transformer_settings(folder)
    _check(settings, _transformer_keys(kinds, sees=architecture(config) in WITH_PICTURES))
    _check(optional_object(folder / "config_sentence_transformers.json"), _model_keys(kinds))


def _check_order(folder: Path, modules: tuple[Module, ...]) -> None:
    """Refuse modules that do not follow each other as Transformer, Pooling, and what works on pooled vectors."""
    file = folder / "modules.json"
    kinds = [module.kind for module in modules]
    if routed := next((kind for kind in kinds if kind in ("Router", "Asym")), None):
        raise ModelMismatchError(
            f"{file} has the module {routed!r}, which runs queries and documents through different layers; this "
            "library runs one model for both. Save the two sides as folders of their own, or use sentence-transformers "
            "itself"
        )
    for kind in kinds:
        if kind not in ("Transformer", *_MODULES, *_UNTOUCHED):
            raise ModelMismatchError(
                f"{file} has the module {kind!r}; those known here are {', '.join(['Transformer', *_MODULES])}. Run "
                "this model with sentence-transformers itself"
            )
    if not kinds or kinds[0] != "Transformer" or kinds.count("Transformer") != 1:
        raise ModelMismatchError(f"{file} should begin with its only 'Transformer'; it has {kinds}")
    if kinds.count("Pooling") > 1 or kinds.count("LogitScore") > 1 or {"Pooling", "LogitScore"} <= set(kinds):
        raise ModelMismatchError(f"{file} has {kinds}; one 'Pooling' or one 'LogitScore' is what a model has")
    if len(kinds) > 1 and kinds[1] not in ("Pooling", "LogitScore"):
        raise ModelMismatchError(
            f"{file} has {kinds[1]!r} in front of 'Pooling', so that it would change token states; only what comes "
            f"after 'Pooling' is supported: put it there if that is meant, {OTHERWISE}"
        )
    if "LogitScore" in kinds and len(kinds) > 2:
        raise ModelMismatchError(f"{file} has {kinds[2]!r} after 'LogitScore'; nothing is known to belong there")
    for what, values in (
        ("name", [entry.get("name") for entry in read_objects(file)]),
        ("path", [Path(module.path) for module in modules]),
    ):
        twice = next((value for value in values if value is not None and values.count(value) > 1), None)
        if twice is not None:
            raise ModelMismatchError(
                f"{file} has two modules with the {what} {str(twice)!r}, of which sentence-transformers would run one "
                f"or the same one twice; give each its own {what}, or remove one"
            )


def _check(settings: JsonObject, keys: Mapping[str, Rule]) -> None:
    for key in settings:
        if key in keys:
            keys[key](settings, key)
        else:
            raise ModelMismatchError(
                f"{settings.file} has the key {key!r}, which is not known here and may change vectors; remove it from "
                f"the file if it does not, {OTHERWISE}"
            )


def _harmless(settings: JsonObject, key: str) -> None:
    """Pass a key that moves no vector here, whatever its value."""


def _only(*allowed: object, why: str) -> Rule:
    """Make a rule: these values, or null; `why` says what any other would do and how to do without."""

    def rule(settings: JsonObject, key: str) -> None:
        value = settings.get(key)
        # `1 == True` in Python, not in JSON.
        if value is not None and not any(type(value) is type(item) and value == item for item in allowed):
            raise ModelMismatchError(f"{settings.file} sets {key!r} to {value!r}: {why}, {OTHERWISE}")

    return rule


def _within(known: Mapping[str, Rule]) -> Rule:
    """Make a rule: an object with these keys only."""

    def rule(settings: JsonObject, key: str) -> None:
        for name in settings.object(key) or {}:
            if name not in known:
                raise ModelMismatchError(
                    f"{settings.file} sets {name!r} in {key!r}, which is not known here and may change vectors; remove "
                    f"it from the file if it does not, {OTHERWISE}"
                )

    return rule


def _count(settings: JsonObject, key: str) -> None:
    settings.count(key)


def _residual(config: JsonObject, key: str) -> None:
    """Refuse a residual with weights of its own: with the lowest supported versions they were not loaded."""
    if config.flag(key) and config.count("in_features") != config.count("out_features"):
        raise ModelMismatchError(
            f"{key!r} in {config.file} is true and in_features is not out_features, which not every supported "
            f"sentence-transformers loads right; {OTHERWISE}"
        )


def _flag(settings: JsonObject, key: str) -> None:
    settings.flag(key)


def _text(settings: JsonObject, key: str) -> None:
    settings.text(key)


def _positive(settings: JsonObject, key: str) -> None:
    if settings.count(key) == 0:
        settings.refuse(key, "a number of at least 1")


def _activation(settings: JsonObject, key: str) -> None:
    """Pass the classes that sentence-transformers would load without running foreign code."""
    if not (settings.text(key) or "").startswith("torch.nn.modules."):
        raise ModelMismatchError(
            f"{settings.file} sets {key!r} to {settings[key]!r}, which is no class of torch.nn.modules; "
            "sentence-transformers would use Tanh in its place. Write the one that the model was trained with"
        )


def _sees(settings: JsonObject, key: str) -> None:
    """Pass what says that pictures and texts in a chat template are pooled as texts alone are."""
    _modality(settings, key)
    modalities = settings.within(key)
    for name, due in (("image", _PLAIN_TEXT), ("message", {**_PLAIN_TEXT, "format": "structured"})):
        if modalities and modalities.get(name) != due:
            raise ModelMismatchError(
                f"{settings.file} sets {name!r} in {key!r} to {modalities.get(name)!r}; this library reads the last "
                f"hidden states of a chat template with texts and pictures, which is {due!r}. Write this if the model "
                f"was trained so, {OTHERWISE}"
            )
    # Without it sentence-transformers leaves out the end of the template, where the pooled token stands.
    chat = settings.within("processing_kwargs").within("chat_template")
    if modalities and chat.flag("add_generation_prompt") is not True:
        raise ModelMismatchError(
            f"'add_generation_prompt' of 'chat_template' in 'processing_kwargs' of {settings.file} is "
            f"{chat.get('add_generation_prompt')!r}; models of this family end their prompt with the assistant's turn. "
            f"Write true if this one was trained so, {OTHERWISE}"
        )


def _chat(settings: JsonObject, key: str) -> None:
    """Pass what says how a chat template is filled, as far as it is done here."""
    _within({"chat_template": _harmless})(settings, key)
    _within({"add_generation_prompt": _flag})(settings.within(key), "chat_template")


def _modality(settings: JsonObject, key: str) -> None:
    """Pass what says that a text's token states are the model's last hidden states."""
    modalities = settings.object(key)
    if modalities is not None and modalities.get("text") != _PLAIN_TEXT:
        raise ModelMismatchError(
            f"{settings.file} sets 'text' in {key!r} to {modalities.get('text')!r}; this library reads the last hidden "
            f"states of a prompt and a text, which is {_PLAIN_TEXT!r}. Write this if the model was trained so, "
            f"{OTHERWISE}"
        )


_PLAIN_TEXT = {"method": "forward", "method_output_name": "last_hidden_state"}
_POOLED = _only("sentence_embedding", why="modules work on pooled vectors here; remove it if that is meant")
_FLAGS = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")

_ENTRY: dict[str, Rule] = {
    # The order of the list is the order of the modules.
    "idx": _harmless,
    "name": _text,
    "path": _text,
    "type": _text,
    # Names of arguments that a caller of sentence-transformers may pass on.
    "kwargs": _harmless,
}
_MODULES: dict[str, dict[str, Rule]] = {
    "Pooling": {
        "embedding_dimension": _positive,
        "word_embedding_dimension": _positive,
        # Read with the modes by `ModelFiles.pooling`.
        "pooling_mode": _harmless,
        **{f"pooling_mode_{name}": _flag for name in _FLAGS},
        "include_prompt": _only(
            True, why="leaving the prompt out of the pooling is not supported; train with include_prompt"
        ),
    },
    "Dense": {
        "in_features": _positive,
        "out_features": _positive,
        "bias": _flag,
        "activation_function": _activation,
        "module_input_name": _POOLED,
        "module_output_name": _POOLED,
        "use_residual": _residual,
    },
    "Normalize": {"module_input_name": _POOLED, "module_output_name": _POOLED},
    "Dropout": {"dropout": _harmless},
    "LayerNorm": {"dimension": _positive},
    "LogitScore": {
        "true_token_id": _count,
        "false_token_id": _count,
        "module_input_name": _only("causal_logits", why="scores come from the output layer; remove it"),
    },
}
_HOW_TO_RUN: dict[str, Rule] = dict.fromkeys(
    ("dtype", "torch_dtype", "attn_implementation", "low_cpu_mem_usage", "device_map", "use_safetensors", "use_cache",
     "trust_remote_code", "add_pooling_layer"),
    _harmless,
)  # fmt: skip


def _transformer_keys(kinds: set[str], *, sees: bool) -> dict[str, Rule]:
    """Return the rules for sentence_bert_config.json and the other names it has had.

    Args:
        kinds: The modules of the folder.
        sees: Whether the model reads pictures.
    """
    embedder = "Pooling" in kinds
    # Without modules.json, sentence-transformers does not read this file.
    of_embedders, of_rerankers = embedder or not kinds, not embedder
    tasks = [*["feature-extraction"] * of_embedders, *["text-generation", "sequence-classification"] * of_rerankers]
    tasks += ["any-to-any"] * (sees and of_rerankers)
    outputs = [*["token_embeddings"] * of_embedders, *["causal_logits", "scores"] * of_rerankers]
    late = "late interaction compares token by token, which this library does not; remove it for one vector per text"
    lower = _only(
        False, why="only embedders with a modules.json have it; put a Lowercase normalizer into tokenizer.json"
    )
    return {
        "max_seq_length": _count,
        "do_lower_case": _flag if embedder else lower,
        "transformer_task": _only(*tasks, why=f"this kind of model needs {' or '.join(tasks)}"),
        # Rerankers get this library's own template.
        "modality_config": (_sees if sees else _modality) if embedder else _harmless,
        "module_output_name": _only(*outputs, why=f"this kind of model makes {' or '.join(outputs)}"),
        "processing_kwargs": (_chat if sees else _within({})) if embedder else _harmless,
        "unpad_inputs": _harmless,
        "query_length": _only(why=late),
        "document_length": _only(why=late),
        "query_expansion": _only(why=late),
        "model_args": _within(_HOW_TO_RUN),
        "model_kwargs": _within(_HOW_TO_RUN),
        "tokenizer_args": _within(dict.fromkeys(("use_fast", "trust_remote_code", "padding_side"), _harmless)),
        "processor_kwargs": _within(dict.fromkeys(("use_fast", "trust_remote_code", "padding_side"), _harmless)),
        "config_args": _within(_HOW_TO_RUN),
        "config_kwargs": _within(_HOW_TO_RUN),
        "tokenizer_name_or_path": _only(why="the tokenizer is read from this folder; save it there and remove this"),
    }


def _model_keys(kinds: set[str]) -> dict[str, Rule]:
    """Return the rules for config_sentence_transformers.json."""
    embedder = "Pooling" in kinds or not kinds
    types = [*["SentenceTransformer"] * embedder, *["CrossEncoder"] * ("Pooling" not in kinds)]
    activations = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Sigmoid"
    metric = _only("cosine", "dot", "euclidean", "manhattan", why="one vector per text has one of these")
    return {
        "__version__": _harmless,
        # What the author asks of an installation of sentence-transformers.
        "requirements": _harmless,
        "prompts": _harmless,
        "default_prompt_name": _text,
        "model_type": _only(*types, why=f"its modules are those of a {' or '.join(types)}"),
        "similarity_fn_name": metric if embedder else _harmless,
        "truncate_dim": _positive if embedder else _only(why="scores have no width; remove it"),
        "activation_fn": _harmless if embedder else _only(*activations, why="scores are log-odds or probabilities"),
        "keep_in_fp32_modules": _harmless,
    }
