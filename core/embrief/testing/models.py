"""`check_model`: a model's record, by itself, against its files, and on every runtime that serves it."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embrief.discovery.plugins import catalog
from embrief.errors import ArgumentError, ModelMismatchError, WeightsUnavailableError
from embrief.facts.prompts import RenderedTexts, Source, fill
from embrief.facts.specs import NO_PROMPT, EmbeddingSpec, ModelSpec, RerankerSpec, Template
from embrief.files.folders import missing_files
from embrief.files.identify import verify_files
from embrief.files.model_files import ModelFiles, read_files
from embrief.runtimes.base import Ask, LoadRequest, Offer, Refusal, RunOptions, Runtime
from embrief.serving.choosing import Choice, ask_all, best
from embrief.testing.contract import PROBES, check_runtime, probe_pairs

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FEW_TOKENS = 16
"""Fewer than the longest probe has: it is cut."""


def check_model(spec: ModelSpec, folder: str | Path | None = None) -> None:
    """Check a model's record: by itself, against the model's files, and on every installed runtime that serves it.

    For the tests of whoever adds a model. It loads the model once per runtime, in float32 on the CPU. Each runtime must
    keep the contract (`check_runtime`), and where there are several, all must agree
    on texts with the prompts of all tasks. What no file says is left to you: whether the prompts are those that the
    model was trained with. Of a model that only servers run, the record alone is checked.

    Args:
        spec: The record. It need not be registered.
        folder: The model's files; unless given, those that come with the record. A model whose runtime needs no files
            has none.

    Raises:
        AssertionError: Something is wrong; the message says what.
        ArgumentError: The model needs files and there is no folder.
        WeightsUnavailableError: Files of the model are missing.
        MissingDependencyError: No runtime that serves the model is installed.
        BackendError: No runtime serves the model.
    """
    found = catalog()
    if gaps := _gaps(spec):
        raise AssertionError(f"the record of {spec.id}: {'; '.join(gaps)}")
    if spec.elsewhere is not None and not any(_is_here(answer) for answer in ask_all(found, spec).values()):
        _require_sound(spec, native_dims=False)
        return
    # Says what is missing if there is none.
    serves = best(found, spec)
    _require_sound(spec, native_dims=serves.offer.native_dims)
    place = Path(folder).expanduser() if folder is not None else spec.folder
    if serves.offer.artifact is not None and place is None:
        raise ArgumentError(f"{spec.id} is checked against its files: give the folder that holds them")
    try:
        files = None if place is None else read_files(place)
        if files is not None:
            _check_files(spec, files)
        offers = {
            runtime: answer
            for runtime, answer in ask_all(found, spec, device="cpu", dtype="float32", files=files).items()
            if _is_here(answer) and isinstance(answer, Offer)
        }
        answers = {
            runtime.name: _answers(runtime, offer, spec, place)
            for runtime, offer in offers.items()
            if not runtime.missing() and (place is not None or offer.artifact is None)
        }
    except ModelMismatchError as error:
        raise AssertionError(str(error)) from error
    (first, expected), *others = answers.items()
    for name, answer in others:
        if not np.allclose(answer, expected, atol=1e-3):
            raise AssertionError(f"the runtimes {first} and {name} give different results for {spec.id}")


def _is_here(answer: Offer | Refusal) -> bool:
    return isinstance(answer, Offer) and not answer.leaves_machine


def _require_sound(spec: ModelSpec, *, native_dims: bool) -> None:
    if problems := _record_problems(spec, native_dims=native_dims):
        raise AssertionError(f"the record of {spec.id}: {'; '.join(problems)}")


def _record_problems(spec: ModelSpec, *, native_dims: bool) -> list[str]:
    """Say what is wrong with a record by itself, where the runtime that would serve it makes any width or not."""
    problems = [f"it has no {name}" for name in ("id", "revision", "license", "source") if not getattr(spec, name)]
    if spec.max_tokens > spec.context:
        problems.append(f"max_tokens={spec.max_tokens} is more than context={spec.context}")
    if isinstance(spec, RerankerSpec):
        head = spec.template.head
        problems += [f"the head of the template needs {{query}} once: {head!r}"] * (head.count("{query}") != 1)
        problems += ["true_token and false_token are the same"] * (spec.true_token == spec.false_token)
        if spec.default_instruction and not spec.instructed:
            problems.append("there is a default_instruction, and the template has no place {instruction}")
        return problems
    assert isinstance(spec, EmbeddingSpec)
    prompts = spec.prompts
    if not native_dims and any(not 0 < width <= spec.dim for width in spec.mrl):
        problems.append(f"mrl has widths that are not between 1 and dim={spec.dim}")
    if not prompts.tasks:
        return [*problems, "it has no task; a model without prompts has one with empty ones"]
    names = [name for task in prompts.tasks for name in (task.name, *task.aliases)]
    problems += [f"two tasks have the name {name!r}" for name in sorted({n for n in names if names.count(n) > 1})]
    for task in prompts.tasks:
        if task.titled is not None and _slots(task.titled) != ["title"]:
            problems.append(f"the titled prompt of {task.name!r} needs {{title}} once: {_shown(task.titled)}")
        problems += [
            f"the {role} prompt of {task.name!r} has a place that nothing fills: {_shown(template)}"
            for role, template in (("query", task.query), ("document", task.document))
            if _slots(template)
        ]
    if prompts.instructed is not None and _slots(prompts.instructed) != ["instruction"]:
        problems.append(f"the instructed prompt needs {{instruction}} once: {_shown(prompts.instructed)}")
    default = prompts.default_instruction
    if default is not None and fill(prompts.instructed or NO_PROMPT, instruction=default) != prompts.tasks[0].query:
        problems.append(
            f"default_instruction={default!r} in the instructed prompt is not the first task's query prompt"
        )
    return problems


def _gaps(spec: ModelSpec) -> list[str]:
    """Say what a record leaves open and may not: only of a model that servers alone run may facts be unknown."""
    if spec.elsewhere is not None:
        named = bool(spec.served_names)
        return [] if named else ["no runtime of this machine loads it, and served_names names none that serves it"]
    wanted = ["architecture", "padding_side", *(["pooling"] if isinstance(spec, EmbeddingSpec) else [])]
    return [
        f"it has no {name}, which only a model that servers alone run may leave open (hosted=, needs_server=)"
        for name in wanted
        if getattr(spec, name) is None
    ]


def _slots(template: Template) -> list[str]:
    """Return the places that a template has, in order."""
    return re.findall(r"\{(instruction|title|query)\}", template.head + template.tail)


def _shown(template: Template) -> str:
    return repr(template.head + template.tail)


def _check_files(spec: ModelSpec, files: ModelFiles) -> None:
    """Compare a record with the model's files."""
    if missing := missing_files(files.folder):
        raise WeightsUnavailableError(f"{files.folder} lacks {', '.join(missing)}")
    verify_files(files, spec)
    if files.context is not None and spec.context > files.context:
        raise AssertionError(f"{spec.id} has context={spec.context}, and its config.json has {files.context} positions")


def _answers(runtime: Runtime, offer: Offer, spec: ModelSpec, folder: Path | None) -> NDArray[Any]:
    """Check one runtime; return unit vectors for texts with every prompt of the record, or log-odds of pairs."""
    ask = Ask(device="cpu", dtype="float32", options=runtime.Options())
    settled = Choice(runtime, ask, offer).settled(spec).offer
    request = LoadRequest(
        spec, folder if settled.artifact is not None else None, settled.device, settled.dtype, artifact=settled.artifact
    )
    model = runtime.load(request)
    options = RunOptions(max_tokens=spec.max_tokens)
    with closing(model):
        check_runtime(model, spec)
        if isinstance(spec, RerankerSpec):
            return model.run(probe_pairs(spec), options).array("score")
        assert isinstance(spec, EmbeddingSpec)
        around = dict.fromkeys(template for task in spec.prompts.tasks for template in (task.query, task.document))
        texts = [item for template in around for item in RenderedTexts(PROBES, template, Source())]
        whole = model.run(texts, options).array("dense")
        few = replace(options, max_tokens=_FEW_TOKENS)
        cut = model.run(RenderedTexts(PROBES, NO_PROMPT, Source()), few).array("dense")
        vectors = np.concatenate([whole, cut])
        unit: NDArray[Any] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit
