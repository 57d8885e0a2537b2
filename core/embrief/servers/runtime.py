"""What the runtimes that ask servers have in common, as discovery sees them.

What speaks to a server is imported when a model is loaded: asyncio alone takes longer than all that `embrief models`
does besides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from embrief.errors import ArgumentTypeError
from embrief.facts.specs import EmbeddingSpec
from embrief.runtimes.base import Offer, Refusal, Runtime
from embrief.system.installed import install_command

if TYPE_CHECKING:
    from embrief.facts.specs import ModelSpec
    from embrief.runtimes.base import Ask
    from embrief.servers.options import ServerOptions


class ServerRuntime(Runtime):
    """Base of the runtimes that ask a server. None is chosen by itself."""

    requires: tuple[str, ...] = ("httpx",)
    devices = ()
    dtypes = ()
    Options: type[ServerOptions]
    kinds: ClassVar[tuple[type[ModelSpec], ...]] = (EmbeddingSpec,)
    """The kinds of models that such servers have."""
    normalizes: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        """Name the extra that brings what it needs: it has the runtime's name."""
        super().__init_subclass__()
        if "name" in cls.__dict__:
            cls.install = install_command(cls.name)

    def offer(self, spec: ModelSpec, ask: Ask) -> Offer | Refusal:
        """Offer what such servers may have; whether this one does, it is asked at load."""
        if not isinstance(spec, self.kinds):
            return Refusal(self.other_kind)
        if ask.files is not None or spec.format != "safetensors":
            return Refusal(
                "serves models with a record; of a folder nobody can say whether the server has the same", "files"
            )
        if spec.images is not None:
            return Refusal(
                "sends a text in one piece with its prompt, in which the name of a special token forges a picture or "
                "the end of a turn"
            )
        if spec.architecture == "hash":
            return Refusal("serves models that servers have, and this one is a few lines of this package")
        options = ask.options
        if not isinstance(options, self.Options):
            raise ArgumentTypeError(f"{self.name} takes {self.Options.__name__}, not {type(options).__name__}")
        refusal = self.refusal(spec, options)
        if refusal is not None:
            return refusal
        return Offer(
            device="server",
            dtype="server",
            identity=f"{options.address.url} {served_name(self.name, spec, options)}{self.further_identity(options)}",
            renders=self.renders(spec, options),
            tells_truncation=False,
            leaves_machine=True,
            normalizes=self.normalizes,
            calibrated=self.calibrated(spec, options),
        )

    other_kind: ClassVar[str] = "serves embedding models, and no rerankers"

    def refusal(self, spec: ModelSpec, options: Any) -> Refusal | None:
        """Say why it cannot be, where that is known without asking."""
        return None

    def renders(self, spec: ModelSpec, options: Any) -> Any:
        """Return who puts the prompt around a text."""
        return "core"

    def calibrated(self, spec: ModelSpec, options: Any) -> bool:
        """Return whether scores are log-odds of relevance."""
        return True

    def further_identity(self, options: Any) -> str:
        """Return what else moves a vector."""
        return ""


def served_name(runtime: str, spec: ModelSpec, options: ServerOptions) -> str:
    """Return what a server calls a model: what the user says, what is recorded, or its id."""
    return options.model or spec.served_name(runtime) or spec.id
