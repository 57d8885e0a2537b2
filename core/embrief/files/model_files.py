"""The small files of a model folder, read once: what they say, and no judgement on what model that makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from embrief.errors import ModelMismatchError, WeightsUnavailableError
from embrief.files.config_keys import architecture, check_types, text_part, token_width
from embrief.files.foreign import folder_problem
from embrief.files.json_files import LARGE, JsonObject, optional_object, read_object, reads_folder
from embrief.files.modules import Module, check_modules, read_modules, transformer_folder, transformer_settings

if TYPE_CHECKING:
    from pathlib import Path

    from embrief.facts.specs import Pooling

_POOLING_FLAGS: dict[str, Pooling] = {
    "pooling_mode_lasttoken": "last",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
}
_POOLING_NAMES: dict[str, Pooling] = {"lasttoken": "last", "mean": "mean", "cls": "cls"}
_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer"}
_ADAPTER = "adapter_config.json"
# The names of prompts that sentence-transformers knows without being told.
_DEFAULTS = ("query", "document")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The small files of a model folder, read once."""

    folder: Path
    base: Path
    """Where config.json and the tokenizer are: the folder, or that of its Transformer module."""
    config: JsonObject
    modules: tuple[Module, ...] | None
    """What modules.json names, `None` without that file."""
    prompts: dict[str, str] | None
    """The folder's own prompts, `None` if it names none."""
    default_prompt: str | None
    max_length: int | None
    truncate_dim: int | None
    """Values per vector that the folder's author wants by default."""
    metric: str | None
    """How the folder's author compares vectors."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Return the class names in modules.json."""
        return tuple(module.kind for module in self.modules or ())

    @property
    def architecture(self) -> str:
        """Return `model_type` of config.json, of the whole model where the text model is stored alone."""
        return architecture(self.config)

    @property
    def classes(self) -> tuple[str, ...]:
        """Return `architectures` of config.json."""
        return tuple(self.config.texts("architectures") or ())

    @property
    def context(self) -> int | None:
        """Return the tokens that the model can hold, `None` if config.json does not say."""
        return _context(text_part(self.config))

    @property
    def hidden_size(self) -> int:
        """Return the width of the text model's hidden states."""
        return text_part(self.config).count("hidden_size") or 0

    @property
    def token_width(self) -> int:
        """Return the values per token that the pooling gets: the hidden states', unless the model projects them."""
        return token_width(self.config)

    def module_config(self, kind: str) -> list[JsonObject]:
        """Return config.json of each module of a class, in order."""
        found = (module for module in self.modules or () if module.kind == kind)
        return [read_object(self.folder / module.path / "config.json") for module in found]

    def pooling(self) -> Pooling:
        """Return how token states become one vector, from 1_Pooling/config.json.

        Raises:
            ModelMismatchError: It is a mode, or a mix of modes, that no record describes.
        """
        config = self.module_config("Pooling")[0]
        if (named := config.get("pooling_mode")) is not None:
            modes = [named] if isinstance(named, str) else config.texts("pooling_mode") or []
            found = [_POOLING_NAMES[mode] for mode in modes if mode in _POOLING_NAMES]
        else:
            modes = [key for key in config if key.startswith("pooling_mode_") and config.flag(key)]
            found = [_POOLING_FLAGS[mode] for mode in modes if mode in _POOLING_FLAGS]
        if len(modes) != 1 or len(found) != 1:
            raise ModelMismatchError(f"{self.folder} pools with {modes}; one of last, mean and cls is supported")
        return found[0]

    def dim(self) -> int:
        """Return the values per vector, after Dense layers."""
        if dense := self.module_config("Dense"):
            width = dense[-1].count("out_features")
            return width if width else dense[-1].refuse("out_features", "the values per vector")
        pooling = self.module_config("Pooling")
        keys = ("embedding_dimension", "word_embedding_dimension")
        widths = [pooling[0].count(key) for key in keys] if pooling else []
        return next((width for width in widths if width), self.token_width)

    def appended_token(self) -> str | None:
        """Return the special token that the tokenizer puts at the end of a text, if any."""
        data = optional_object(self.base / "tokenizer.json", limit=LARGE)
        steps = data.object("post_processor")
        if steps is None:
            return None
        try:
            for step in steps.get("processors", [steps]):
                last = (step.get("single") or [{}])[-1]
                if "SpecialToken" in last:
                    return str(last["SpecialToken"]["id"])
                if step.get("type") in ("RobertaProcessing", "BertProcessing"):
                    return str(step["sep"][0])
        except (AttributeError, KeyError, IndexError, TypeError):
            data.refuse("post_processor", "what the tokenizers library writes")
        return None


@reads_folder
def read_files(folder: Path, *, trusted: bool = False) -> ModelFiles:
    """Read the small files of a model folder.

    Args:
        folder: The model.
        trusted: Whether modules of other packages than sentence-transformers may be named.

    Raises:
        WeightsUnavailableError: config.json, or a file that modules.json points to, is missing.
        ModelMismatchError: A file is not what it should be.
    """
    check_modules(folder, trusted=trusted)
    base = transformer_folder(folder)
    if not (base / "config.json").exists():
        raise WeightsUnavailableError(f"{base / 'config.json'} is missing: the folder {folder_problem(base)}")
    _refuse_adapter(folder, base)
    saved = optional_object(folder / "config_sentence_transformers.json")
    prompts = saved.object("prompts")
    length = transformer_settings(folder).count("max_seq_length")
    tokenizer = optional_object(base / "tokenizer_config.json")
    if length is None:
        # Written as 1e30 where there is none.
        length = int(tokenizer.number("model_max_length") or 0)
    config = read_object(base / "config.json")
    check_types(config)
    lengths = [value for value in (length, _context(text_part(config))) if value is not None and 0 < value < 10**9]
    default = saved.text("default_prompt_name")
    if default is not None and default not in (*_DEFAULTS, *(prompts or ())):
        raise ModelMismatchError(
            f"'default_prompt_name' in {saved.file} is {default!r}, which names no prompt of that file "
            f"({', '.join(prompts or ()) or 'there are none'}); write one of them, or null"
        )
    return ModelFiles(
        folder=folder,
        base=base,
        config=config,
        modules=read_modules(folder),
        prompts={name: text for name in prompts if (text := prompts.text(name)) is not None} if prompts else None,
        default_prompt=default,
        max_length=min(lengths, default=None),
        truncate_dim=saved.count("truncate_dim"),
        metric=saved.text("similarity_fn_name"),
    )


def _refuse_adapter(folder: Path, base: Path) -> None:
    """Refuse a folder with an adapter: transformers would put it onto the weights, where peft is installed."""
    for file in (base / _ADAPTER, folder / _ADAPTER):
        if file.exists():
            raise ModelMismatchError(
                f"{file} says that an adapter belongs to these weights, and no runtime here adds it: if it is merged "
                "already, delete that file (and adapter_model.safetensors); else load both with peft, call "
                "merge_and_unload() and save the result"
            )


def _context(config: JsonObject) -> int | None:
    """Return the tokens a model can hold. RoBERTa's family counts positions from the padding id on."""
    positions = config.count("max_position_embeddings")
    if positions is not None and config.text("model_type") in _OFFSET_POSITIONS:
        padding = config.count("pad_token_id")
        return positions - (1 if padding is None else padding) - 1
    return positions
