"""Files beside tokenizer.json, which move vectors where transformers follows them and not tokenizer.json.

What transformers reads: `PreTrainedTokenizerBase.from_pretrained`, and for BERT's kind `BertTokenizer.__init__`, of
release 5.23; 5.0 takes BERT's from tokenizer.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embrief.errors import ModelMismatchError
from embrief.files.json_files import LARGE, OTHERWISE, JsonObject, optional_object

if TYPE_CHECKING:
    from pathlib import Path

TOKEN_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")
"""What says how an added token is found in a text."""
# Tokenizers of these classes are those of tokenizer.json; their files can be large.
_AS_STORED = ("PreTrainedTokenizer", "TokenizersBackend", "Qwen2", "Gemma")
_NORMALIZER = {
    "do_lower_case": "lowercase",
    "tokenize_chinese_chars": "handle_chinese_chars",
    "strip_accents": "strip_accents",
}
_DEFAULTS = {"do_lower_case": True, "tokenize_chinese_chars": True, "strip_accents": None}


@dataclass(frozen=True, slots=True)
class NamedToken:
    """A token that a file beside tokenizer.json has."""

    content: str
    file: Path
    number: int | None = None
    """Its id, where the file has one."""
    flags: tuple[bool, ...] | None = None
    """How it is found in a text, in the order of `TOKEN_FLAGS`, where that counts."""


def named_tokens(base: Path) -> list[NamedToken]:
    """Return the tokens in the files beside tokenizer.json, which transformers adds where tokenizer.json lacks them.

    Args:
        base: Where the tokenizer is.

    Raises:
        ModelMismatchError: A file has a setting that makes other tokens out of a text than tokenizer.json says, or is
            not what transformers writes.
    """
    found: list[NamedToken] = []
    for settings in _tokenizer_settings(base):
        again = (settings.text("tokenizer_class") or "").startswith(("Qwen2", "Gemma"))
        for key in ("split_special_tokens", *["add_prefix_space"] * again):
            if settings.flag(key):
                raise ModelMismatchError(
                    f"{settings.file} sets {key!r}, with which transformers reads texts otherwise than tokenizer.json "
                    f"says; set it to false if the model was trained without, {OTHERWISE}"
                )
        found += [NamedToken(content, settings.file) for content in _special(settings)]
        entries = settings.within("added_tokens_decoder")
        found += [_decoded(entries, number) for number in entries]
    if not _has_decoder(base):
        numbers = optional_object(base / "added_tokens.json")
        found += [NamedToken(content, numbers.file, numbers.count(content)) for content in numbers]
    return found


def _has_decoder(base: Path) -> bool:
    return optional_object(base / "tokenizer_config.json").get("added_tokens_decoder") is not None


def _tokenizer_settings(base: Path) -> list[JsonObject]:
    """Return what transformers reads about a tokenizer; what comes later goes before."""
    # With this key, transformers leaves the older files alone.
    names = ("tokenizer_config.json", *["special_tokens_map.json"] * (not _has_decoder(base)))
    return [optional_object(base / name) for name in names]


def _special(settings: JsonObject) -> list[str]:
    values = [settings[key] for key in settings if key.endswith("_token")]
    for key in ("additional_special_tokens", "extra_special_tokens"):
        listed = settings.get(key) or []
        if not isinstance(listed, dict | list):
            settings.refuse(key, "a list or an object")
        values += listed.values() if isinstance(listed, dict) else listed
    contents = (value.get("content") if isinstance(value, dict) else value for value in values)
    return [content for content in contents if isinstance(content, str)]


def _decoded(entries: JsonObject, number: str) -> NamedToken:
    entry = entries.within(number)
    content = entry.text("content")
    if content is None or not number.isdecimal():
        entries.refuse(number, "the id of a token and an object with its 'content'")
    # As tokenizers.AddedToken fills in what is not there.
    otherwise = {"normalized": not entry.flag("special")}
    flags = (entry.flag(key) for key in TOKEN_FLAGS)
    return NamedToken(
        content,
        entries.file,
        int(number),
        tuple(
            otherwise.get(key, False) if flag is None else flag for key, flag in zip(TOKEN_FLAGS, flags, strict=True)
        ),
    )


def rebuilt(base: Path) -> dict[str, Any]:
    """Return how a tokenizer of BERT's kind is built from the files beside tokenizer.json, where that says otherwise.

    Args:
        base: Where the tokenizer is.

    Raises:
        ModelMismatchError: A file is not what transformers writes.
    """
    settings = {key: value for part in _tokenizer_settings(base) for key, value in part.items()}
    if str(settings.get("tokenizer_class")).startswith(_AS_STORED):
        return {}
    stored = optional_object(base / "tokenizer.json", limit=LARGE)
    if stored and stored.within("model").text("type") != "WordPiece":
        return {}
    own: dict[str, Any] = stored.within("normalizer")
    if own.get("type") != "BertNormalizer":
        own = {}
    built = _accents({key: settings.get(key, value) for key, value in _DEFAULTS.items()})
    saved = _accents({key: own.get(_NORMALIZER[key], value) for key, value in _DEFAULTS.items()})
    for key, token in (("unk_token", stored.within("model").get("unk_token")), ("cls_token", _first(stored))):
        named = settings.get(key)
        named = named.get("content") if isinstance(named, dict) else named
        if isinstance(named, str) and token is not None:
            built[key], saved[key] = named, token
    return {key: value for key, value in built.items() if value != saved[key]}


def _accents(values: dict[str, Any]) -> dict[str, Any]:
    """Say whether accents go, which by default goes with lower case."""
    accents = values["strip_accents"]
    return {**values, "strip_accents": values["do_lower_case"] if accents is None else accents}


def _first(stored: JsonObject) -> str | None:
    """Return the token in front of a text, from one of two spellings: a list of parts, or the token and its id."""
    match stored.within("post_processor"):
        case {"single": [{"SpecialToken": {"id": str(found)}}, *_]} | {"cls": [str(found), *_]}:
            return found
    return None
