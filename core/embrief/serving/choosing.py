"""Which runtime serves a model, and why not another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from embrief.errors import ArgumentError, ArgumentTypeError, BackendError, MissingDependencyError, PluginWarning, warn
from embrief.runtimes.base import Ask, Offer, Refusal, RuntimeOptions

if TYPE_CHECKING:
    from embrief.discovery.catalog import Catalog
    from embrief.facts.specs import Artifact, ModelSpec
    from embrief.files.model_files import ModelFiles
    from embrief.runtimes.base import Runtime

Answers = Mapping["Runtime", Offer | Refusal]
"""What each runtime says to one question, the preferred ones first."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The runtime that serves a model, and what it offered."""

    runtime: Runtime
    ask: Ask
    offer: Offer

    def settled(self, spec: ModelSpec) -> Choice:
        """Ask again for device and number format as they will be. May import what is heavy.

        Raises:
            ArgumentError: It cannot be done here.
        """
        ask = replace(self.ask, final=True)
        answer: Any = self.runtime.offer(spec, ask)
        if isinstance(answer, Refusal):
            raise ArgumentError(f"the backend {self.runtime.name!r} cannot run {spec.id}: it {answer.reason}")
        if not isinstance(answer, Offer):
            raise BackendError(f"the backend {self.runtime.name!r} offered a {type(answer).__name__}, and no Offer")
        for what in (
            "artifact", "renders", "native_dims", "normalizes", "leaves_machine", "images", "plain_text",
        ):  # fmt: skip
            # Decided by then: what names the space, what was refused, how wide vectors are, that texts stay here, what
            # an input may hold.
            if getattr(answer, what) != getattr(self.offer, what):
                raise BackendError(
                    f"the backend {self.runtime.name!r} changed {what} of its offer when it became final"
                )
        return Choice(self.runtime, ask, answer)


def ask_all(
    catalog: Catalog, spec: ModelSpec, *, device: str = "auto", dtype: str = "auto", files: ModelFiles | None = None
) -> Answers:
    """Ask every runtime, installed or not, whether it serves a model, and how."""
    ordered = sorted(catalog.backends.values(), key=lambda runtime: -runtime.preference)
    found: dict[Runtime, Offer | Refusal] = {}
    for runtime in ordered:
        try:
            options = runtime.Options()
        except (Exception, SystemExit):
            found[runtime] = Refusal(f"needs options: backend={runtime.Options.__name__}(...)")
            continue
        found[runtime] = ask_one(catalog, runtime, spec, Ask(device=device, dtype=dtype, files=files, options=options))
    return found


def ask_one(catalog: Catalog, runtime: Runtime, spec: ModelSpec, ask: Ask) -> Offer | Refusal:
    """Ask one runtime. One that fails is left out and blamed: it must not take the models of the others with it."""
    words = {"device": ask.device.partition(":")[0], "dtype": ask.dtype}
    unknown = {what: word for what, word in words.items() if word not in ("auto", *getattr(runtime, f"{what}s"))}
    try:
        device, dtype = ("auto" if what in unknown else getattr(ask, what) for what in words)
        answer: Any = runtime.offer(spec, replace(ask, device=device, dtype=dtype))
        if not isinstance(answer, (Offer, Refusal)):
            raise TypeError(f"offer returned a {type(answer).__name__}, neither Offer nor Refusal")
    except (Exception, SystemExit) as error:
        problem = f"the backend {runtime.name!r} failed when asked whether it runs {spec.id}: {error!r}"
        if catalog.report(runtime.name, problem):
            warn(f"{problem}; it is left out", PluginWarning)
        return Refusal(f"failed when asked whether it runs {spec.id}: {error!r}", "files")
    if isinstance(answer, Offer):
        # Here, so that no runtime has to think of it.
        if spec.format != "safetensors" and answer.artifact is not None and answer.artifact.is_safetensors:
            return Refusal(f"reads safetensors, and these files are {spec.format}", "files")
        for what, asked in unknown.items():
            known = getattr(runtime, f"{what}s")
            if not known:
                return Refusal(f"takes no {what}={asked!r}: its server decides that", "request")
            others = [item.name for item in catalog.backends.values() if asked in getattr(item, f"{what}s")]
            only = f", which {' and '.join(others)} have" if others else ""
            return Refusal(f"has no {what}={asked!r}{only}; it has {', '.join(map(repr, known))}", "request")
    return answer


def serving(catalog: Catalog, spec: ModelSpec) -> list[Runtime]:
    """Return the runtimes that serve a model by its record, installed or not, best first."""
    return [runtime for runtime, answer in ask_all(catalog, spec).items() if isinstance(answer, Offer)]


def to_fetch(catalog: Catalog, spec: ModelSpec) -> Artifact | None:
    """Return what has to be on this machine to use a model, where nobody asks for a certain runtime.

    Returns:
        The artifact of the runtime that would serve it, installed or not; `None` if nothing is to be fetched: the files
        come with the record, the runtime needs none, or servers alone run it.
    """
    if spec.folder is not None:
        return None
    stays = _staying(ask_all(catalog, spec))
    installed = [offer for runtime, offer in stays.items() if not runtime.missing()]
    best = next(iter([*installed, *stays.values()]), None)
    if best is not None:
        return best.artifact
    return spec.safetensors if spec.elsewhere is None else None


def to_fetch_for(catalog: Catalog, spec: ModelSpec, backend: str | RuntimeOptions, dtype: str) -> Artifact | None:
    """Return what has to be on this machine to use a model in a certain runtime, installed or not.

    Raises:
        ArgumentError: There is no such runtime, or it does not serve the model so.
    """
    runtime = named(catalog, backend)
    answer = ask_one(catalog, runtime, spec, Ask(dtype=dtype, options=options_of(catalog, backend)))
    if isinstance(answer, Refusal):
        raise ArgumentError(f"the backend {runtime.name!r} cannot run {spec.id}: it {answer.reason}")
    return answer.artifact


def choose(
    spec: ModelSpec,
    answers: Answers,
    prefer: Callable[[tuple[str, ...]], str | None] = lambda available: None,
) -> tuple[Runtime, Offer]:
    """Return the runtime for a model where nobody asked for one.

    Args:
        spec: The model.
        answers: What the runtimes say.
        prefer: Chooses among the names of those that are installed, best first; `None` takes the first. Runtimes that
            send texts to another machine are never among them.

    Raises:
        ArgumentError: No runtime has this device or number format for the model.
        MissingDependencyError: The runtimes that serve it are not installed.
        BackendError: No runtime on this machine serves it.
    """
    stays = _staying(answers)
    installed = {runtime.name: runtime for runtime in stays if not runtime.missing()}
    if installed:
        chosen = installed[prefer(tuple(installed)) or next(iter(installed))]
        return chosen, stays[chosen]
    if stays:
        raise _not_installed(next(iter(stays)), spec)
    if spec.elsewhere is not None:
        raise BackendError(f"{spec.id} {spec.elsewhere}")
    leaving = [repr(runtime.name) for runtime, answer in answers.items() if isinstance(answer, Offer)]
    away = (
        f"backend={leaving[0]}, which sends texts to another machine and is never chosen by itself" if leaving else ""
    )
    reasons = [
        f"the backend {runtime.name!r} {answer.reason}"
        for runtime, answer in answers.items()
        # One without devices asks a server: what it misses is its address, and no device or format is in its way.
        if isinstance(answer, Refusal) and answer.about == "request" and runtime.devices
    ]
    if reasons:
        raise ArgumentError(
            f"{spec.id} cannot run so: {'; '.join(reasons)}; use 'auto'{', or ' + away if away else ''}"
        )
    if away:
        raise BackendError(f"{spec.id} does not run on this machine; name {away}")
    raise BackendError(f"no backend can run {spec.id} (architecture {spec.architecture!r})")


def best(catalog: Catalog, spec: ModelSpec) -> Choice:
    """Return what serves a recorded model where nobody asks for anything. Errors as of `choose`."""
    runtime, offer = choose(spec, ask_all(catalog, spec))
    return Choice(runtime, Ask(options=runtime.Options()), offer)


def choose_named(catalog: Catalog, spec: ModelSpec, backend: str | RuntimeOptions, ask: Ask) -> Choice:
    """Return the runtime that was asked for, by its name or by its options.

    Raises:
        ArgumentError: It does not exist or cannot serve the model.
        MissingDependencyError: It is not installed.
    """
    runtime, ask = named(catalog, backend), replace(ask, options=options_of(catalog, backend))
    answer = ask_one(catalog, runtime, spec, ask)
    if isinstance(answer, Refusal):
        if answer.about == "model":
            able = ", ".join(item.name for item in serving(catalog, spec)) or "none"
            remedy = f"; those that can: {able}" if spec.elsewhere is None else f"; {spec.id} {spec.elsewhere}"
        else:
            remedy = "; leave backend out" if answer.about == "files" else "; use 'auto', or leave backend out"
        raise ArgumentError(f"the backend {runtime.name!r} cannot run {spec.id}: it {answer.reason}{remedy}")
    if runtime.missing():
        raise _not_installed(runtime, spec)
    return Choice(runtime, ask, answer)


def named(catalog: Catalog, backend: str | RuntimeOptions) -> Runtime:
    """Return a runtime by its name or its options.

    Raises:
        ArgumentError: There is none.
    """
    if isinstance(backend, RuntimeOptions):
        found = catalog.runtime_of(type(backend))
        if found is None:
            raise ArgumentError(
                f"no installed plugin has the options {type(backend).__name__}; `embrief plugins` lists them"
            )
        return found
    if backend not in catalog.backends:
        raise ArgumentError(f"there is no backend {backend!r}; there are {', '.join(catalog.backends)}")
    return catalog.backends[backend]


def options_of(catalog: Catalog, backend: str | RuntimeOptions) -> RuntimeOptions:
    """Return the options that were given, or the defaults of a runtime that was named.

    Raises:
        ArgumentError: The runtime cannot do without options.
    """
    if isinstance(backend, RuntimeOptions):
        return backend
    kind = named(catalog, backend).Options
    try:
        return kind()
    except (Exception, SystemExit) as error:
        raise ArgumentTypeError(
            f"the backend {backend!r} needs options: backend={kind.__name__}(...) ({error})"
        ) from error


def passed_over(spec: ModelSpec, chosen: Runtime, answers: Answers) -> str:
    """Say why no runtime of higher preference runs a model."""
    reasons = []
    for runtime, answer in answers.items():
        if runtime.preference <= chosen.preference:
            continue
        if isinstance(answer, Refusal) and answer.about != "model":
            reasons.append(f"the {runtime.name} {answer.reason}")
        elif isinstance(answer, Offer) and not answer.leaves_machine and runtime.missing():
            reasons.append(f"{runtime.name} needs {', '.join(runtime.missing())}")
    if reasons:
        return "; ".join(reasons)
    return "it is the fastest" if chosen is next(iter(answers)) else f"no faster one runs {spec.architecture!r} models"


def _staying(answers: Answers) -> dict[Runtime, Offer]:
    return {
        runtime: answer
        for runtime, answer in answers.items()
        if isinstance(answer, Offer) and not answer.leaves_machine
    }


def _not_installed(runtime: Runtime, spec: ModelSpec) -> MissingDependencyError:
    return MissingDependencyError(
        f"{spec.id} runs on the backend {runtime.name!r}, which needs {', '.join(runtime.missing())}: {runtime.install}"
    )
