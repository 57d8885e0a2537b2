"""Types of fields that requests of several dialects have."""

from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from embrief.errors import ArgumentError

TOKEN_IDS = (
    "token ids are those of one tokenizer, and nobody knows whose these are; send texts (for langchain-openai: "
    "OpenAIEmbeddings(check_embedding_ctx_length=False))"
)


_KINDS = {dict: "an object", list: "a list", bool: "true or false", int: "a number", float: "a number", str: "a text"}


def one_or_many(value: Any) -> list[str]:
    """Return a text, or a list of texts, as a list.

    Raises:
        ArgumentError: It is something else; the error has the index.
    """
    if isinstance(value, str):
        return [one(value)]
    if not isinstance(value, list):
        raise ArgumentError(f"a text or a list of texts belongs here, not {kind_of(value)}")
    return texts(value)


def texts(value: Any) -> list[str]:
    """Return a list of texts.

    Raises:
        ArgumentError: It is something else, or an item is no text; the error has the index.
    """
    if not isinstance(value, list):
        raise ArgumentError(f"a list of texts belongs here, not {kind_of(value)}")
    for index, item in enumerate(value):
        if isinstance(item, str):
            if _is_halved(item):
                raise ArgumentError(f"the text at index {index} holds half of a surrogate pair", index=index)
            continue
        parts = item if isinstance(item, list) else [item]
        if all(type(part) is int for part in parts):
            raise ArgumentError(f"the item at index {index} is no text: {TOKEN_IDS}", index=index)
        raise ArgumentError(f"the item at index {index} is no text but {kind_of(item)}", index=index)
    return value


def one(value: Any) -> str:
    """Return a text.

    Raises:
        ArgumentError: It is something else.
    """
    if not isinstance(value, str):
        raise ArgumentError(f"a text belongs here, not {kind_of(value)}")
    if _is_halved(value):
        raise ArgumentError("the text holds half of a surrogate pair")
    return value


def _is_halved(text: str) -> bool:
    """Return whether there is half of a surrogate pair in a text: the codec finds it faster than a loop."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def kind_of(value: Any) -> str:
    """Return what a JSON value is, for messages that do not repeat it."""
    return "null" if value is None else _KINDS.get(type(value), type(value).__name__)


_LIST = {"type": "array", "items": {"type": "string"}}
OneOrMany = Annotated[list[str], BeforeValidator(one_or_many), WithJsonSchema({"anyOf": [{"type": "string"}, _LIST]})]
"""A text, or a list of texts."""
Texts = Annotated[list[str], BeforeValidator(texts), WithJsonSchema(_LIST)]
"""A list of texts."""
Text = Annotated[str, BeforeValidator(one), WithJsonSchema({"type": "string"})]
"""A text."""
