"""One input as a conversation, which is how vLLM takes pictures for embedding: POST /v1/embeddings with `messages`.

A server there fills the model's chat template. Here prompts are the record's: the system message is the instruction,
the user's message the input, and an empty message of the assistant, which vLLM's examples end with, says nothing.

Source: vLLM's documentation of pooling models, and its examples for Qwen3-VL-Embedding.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, WithJsonSchema

from embrief.errors import ArgumentError
from embrief.facts.prompts import as_sentence
from embrief.facts.specs import EmbeddingPrompts
from embrief.server.dialects.parts import PARTS, item
from embrief.server.failures import refused
from embrief.server.pictures import Item, count_of, texts_of


def _content(value: Any) -> Item:
    if not isinstance(value, (str, list)):
        raise ArgumentError("the content of a message is a text or a list of parts")
    return item(value)


class Message(BaseModel):
    """A message. Unknown fields are let pass."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[Any, BeforeValidator(_content), WithJsonSchema({"anyOf": [{"type": "string"}, PARTS]})]


def one_input(messages: Sequence[Message], prompts: EmbeddingPrompts) -> tuple[Item, str | None]:
    """Return the input that a conversation is, and its instruction.

    Args:
        messages: The messages.
        prompts: Of the model: its own instruction counts as none, since it stands before documents as well.

    Raises:
        Refused: There is not one message of the user, or a picture or an answer is where none belongs.
    """
    user = [message.content for message in messages if message.role == "user"]
    system = [message.content for message in messages if message.role in ("system", "developer")]
    if len(user) != 1 or len(system) > 1:
        told = f"a conversation is one input: one message of the user, not {len(user)}, and one of the system at most"
        raise refused(400, "invalid_request", told, param="messages")
    if any(
        texts_of(message.content) or count_of([message.content]) for message in messages if message.role == "assistant"
    ):
        told = "a message of the assistant is empty here: nothing is said behind an input"
        raise refused(400, "invalid_request", told, param="messages")
    if count_of(system):
        told = "a system message is the instruction, which is a text; put pictures into the user's message"
        raise refused(400, "invalid_request", told, param="messages")
    said = texts_of(system[0]) if system else ""
    own = prompts.default_instruction
    if not said or (own is not None and as_sentence(said) == as_sentence(own)):
        return user[0], None
    return user[0], said
