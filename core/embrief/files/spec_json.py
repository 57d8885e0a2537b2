"""Facts about a model as plain JSON, and back: for files that describe a model of which nothing is recorded."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from embrief.facts.specs import (
    EmbeddingPrompts,
    EmbeddingSpec,
    ModelSpec,
    Pooling,
    RerankerSpec,
    Scoring,
    Task,
    Template,
)
from embrief.files.json_files import JsonObject

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_TOKENS = 2**24
_MOST_VALUES = 2**16
_LONGEST = 2**16
_LONGEST_NAME = 255
"""Characters; a model that lies in a folder is called as that is, and systems allow as many."""
T = TypeVar("T")


def spec_to_json(spec: ModelSpec) -> dict[str, Any]:
    """Return the facts that decide what a model computes and how it is used."""
    both: dict[str, Any] = {
        "id": spec.id,
        "license": spec.license,
        "architecture": spec.architecture,
        "hidden_size": spec.hidden_size,
        "max_tokens": spec.max_tokens,
        "context": spec.context,
        "padding_side": spec.padding_side,
    }
    # Left out where they are what most models have: what was written before stays as it is.
    if spec.images is not None:
        both["images"] = asdict(spec.images)
        for name, usual in (("budgets", ()), ("prompt", "around")):
            if getattr(spec.images, name) == usual:
                del both["images"][name]
    if spec.special_tokens != "parsed":
        both["special_tokens"] = spec.special_tokens
    if isinstance(spec, EmbeddingSpec):
        prompts = asdict(spec.prompts)
        if not spec.prompts.instruction_is_sentence:
            del prompts["instruction_is_sentence"]
        widths = spec.mrl
        return both | {
            "dim": spec.dim,
            # All of them in a row: a list would be as long as a vector.
            "mrl": {"from": widths[0], "to": widths[-1]} if isinstance(widths, range) and widths else list(widths),
            "default_dim": spec.default_dim,
            "pooling": spec.pooling,
            "prompts": prompts,
            "final_token": spec.final_token,
            "lexical": spec.lexical,
        }
    assert isinstance(spec, RerankerSpec)
    return both | {
        "scoring": spec.scoring,
        "template": asdict(spec.template),
        "default_instruction": spec.default_instruction,
        "true_token": spec.true_token,
        "false_token": spec.false_token,
    }


def prompts_digest(spec: ModelSpec) -> str:
    """Return `sha256:...` over all facts that decide which bytes reach the tokenizer, and what is made of them."""
    facts = spec_to_json(spec)
    for name in ("id", "license", "max_tokens", "context", "padding_side", "hidden_size", "mrl", "default_dim"):
        facts.pop(name, None)
    text = json.dumps(facts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def spec_from_json(facts: JsonObject, kind: type[ModelSpec], source: str) -> EmbeddingSpec | RerankerSpec:
    """Return the facts that `spec_to_json` wrote.

    Args:
        facts: The object.
        kind: Whether it is an embedding model or a reranker.
        source: Where the facts come from.

    Raises:
        ModelMismatchError: A value is missing or cannot be.
    """
    if kind is EmbeddingSpec:
        dim = number(facts, "dim", _MOST_VALUES)
        default = facts.count("default_dim")
        if default is not None and not 1 <= default <= dim:
            facts.refuse("default_dim", f"a number from 1 to {dim}")
        return EmbeddingSpec(
            **_both(facts, source),
            dim=dim,
            mrl=_widths(facts, dim),
            default_dim=default,
            pooling=_one_of(facts, "pooling", get_args(Pooling)),
            prompts=_prompts(part(facts, "prompts")),
            final_token=facts.text("final_token"),
            lexical=facts.flag("lexical") or False,
        )
    return RerankerSpec(
        **_both(facts, source),
        scoring=_one_of(facts, "scoring", get_args(Scoring)),
        template=_template(part(facts, "template")),
        default_instruction=facts.text("default_instruction"),
        true_token=text(facts, "true_token"),
        false_token=text(facts, "false_token"),
    )


def text(values: JsonObject, key: str, longest: int = _LONGEST_NAME) -> str:
    """Return a string that is there and neither empty nor longer than such strings are.

    Raises:
        ModelMismatchError: It is not.
    """
    found = values.text(key)
    if not found or len(found) > longest:
        values.refuse(key, f"a string of 1 to {longest} characters")
    return found


def number(values: JsonObject, key: str, most: int) -> int:
    """Return a whole number from 1 to the most that can be.

    Raises:
        ModelMismatchError: It is none.
    """
    found = values.count(key)
    if not found or found > most:
        values.refuse(key, f"a whole number from 1 to {most}")
    return found


def part(values: JsonObject, key: str) -> JsonObject:
    """Return an object that is there.

    Raises:
        ModelMismatchError: It is not.
    """
    found = values.object(key)
    if found is None:
        values.refuse(key, "an object")
    return found


def _both(facts: JsonObject, source: str) -> dict[str, Any]:
    return {
        "id": text(facts, "id"),
        "revision": "",
        "license": text(facts, "license"),
        "architecture": text(facts, "architecture"),
        "hidden_size": number(facts, "hidden_size", _MOST_VALUES),
        "max_tokens": number(facts, "max_tokens", _MOST_TOKENS),
        "context": number(facts, "context", _MOST_TOKENS),
        "padding_side": _one_of(facts, "padding_side", ("left", "right")),
        "source": source,
    }


def _one_of(values: JsonObject, key: str, known: tuple[T, ...]) -> T:
    found: Any = values.get(key)
    if found not in known:
        values.refuse(key, f"one of {', '.join(map(repr, known))}")
    return known[known.index(found)]


def _widths(facts: JsonObject, dim: int) -> Sequence[int]:
    found: Any = facts.get("mrl")
    if isinstance(found, dict):
        bounds = JsonObject(found, facts.file)
        return range(number(bounds, "from", dim), number(bounds, "to", dim) + 1)
    if not isinstance(found, list) or not all(type(width) is int and 1 <= width <= dim for width in found):
        facts.refuse("mrl", f"widths from 1 to {dim}")
    return tuple(found)


def _template(values: JsonObject) -> Template:
    head, tail = values.text("head"), values.text("tail")
    for key, found in (("head", head), ("tail", tail)):
        if found is None or len(found) > _LONGEST:
            values.refuse(key, f"a string of at most {_LONGEST} characters")
    return Template(head or "", tail or "")


def _optional_template(values: JsonObject, key: str) -> Template | None:
    found = values.object(key)
    return None if found is None else _template(found)


def _prompts(values: JsonObject) -> EmbeddingPrompts:
    found: Any = values.get("tasks")
    if not isinstance(found, list) or not found or not all(isinstance(item, dict) for item in found):
        values.refuse("tasks", "a list of objects, with one at least")
    tasks = []
    for item in found:
        task = JsonObject(item, values.file)
        tasks.append(
            Task(
                name=text(task, "name"),
                query=_template(part(task, "query")),
                document=_template(part(task, "document")),
                titled=_optional_template(task, "titled"),
                aliases=tuple(task.texts("aliases") or ()),
            )
        )
    return EmbeddingPrompts(tuple(tasks), _optional_template(values, "instructed"), values.text("default_instruction"))
