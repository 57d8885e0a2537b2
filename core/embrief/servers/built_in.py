"""The built-in runtimes that ask servers: what they are called, and what they offer and refuse."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from embrief.facts.specs import EmbeddingSpec, RerankerSpec
from embrief.runtimes.base import Refusal
from embrief.servers.keys import PROVIDER_KEYS
from embrief.servers.options import HfInference, HttpSimple, Ollama, OpenAI, RerankHttp, Tei
from embrief.servers.runtime import ServerRuntime

if TYPE_CHECKING:
    from embrief.facts.specs import ModelSpec
    from embrief.runtimes.base import LoadRequest, Model


_PROVIDERS = {"Mistral": "https://api.mistral.ai/v1"}
_LEGACY = "/api/embeddings"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LIKE_OPENAI = {"deepinfra": "/v1/openai", "scaleway": "/v1", "together": "/v1"}
"""Providers behind the hub's router that embed, and where each has OpenAI's `/embeddings` (huggingface_hub 1.33)."""


class OpenAIRuntime(ServerRuntime):
    """Servers with OpenAI's `/embeddings`."""

    name = "openai"
    Options = OpenAI
    normalizes = True

    def refusal(self, spec: ModelSpec, options: OpenAI) -> Refusal | None:
        """Refuse to ask a provider for what it does not have."""
        if options.base_url is None and spec.hosted != "OpenAI":
            url = _PROVIDERS.get(spec.hosted or "", "http://127.0.0.1:8000/v1")
            return Refusal(
                f"asks OpenAI itself unless it is told where else; write backend=OpenAI(base_url={url!r})", "request"
            )
        if options.final_token == "append" and isinstance(spec, EmbeddingSpec) and spec.final_token is None:
            return Refusal(
                f"cannot append a final token: of {spec.id} none is known; leave out final_token='append'", "request"
            )
        return None

    def images(self, spec: ModelSpec, options: OpenAI) -> bool:
        """Return whether it may be a server of embrief's, which takes pictures; that is asked at load."""
        return options.address.host not in PROVIDER_KEYS

    def further_identity(self, options: OpenAI) -> str:
        """Return who puts the final token behind a text, where it is not the server."""
        return "" if options.final_token == "server" else " +final"

    def load(self, request: LoadRequest) -> Model:
        """Reach the server."""
        from embrief.servers.openai import OpenAIEmbedder

        return OpenAIEmbedder(request).started()


class TeiRuntime(ServerRuntime):
    """text-embeddings-inference."""

    name = "tei"
    Options = Tei
    kinds = (EmbeddingSpec, RerankerSpec)

    def refusal(self, spec: ModelSpec, options: Tei) -> Refusal | None:
        """Refuse rerankers whose template TEI would leave out."""
        if isinstance(spec, RerankerSpec) and spec.scoring != "classifier":
            return Refusal("puts no template around a query and a document, which this reranker was trained with")
        return None

    def load(self, request: LoadRequest) -> Model:
        """Reach the server."""
        from embrief.servers.tei import TeiEmbedder, TeiReranker

        embeds = isinstance(request.spec, EmbeddingSpec)
        return (TeiEmbedder if embeds else TeiReranker)(request).started()


class OllamaRuntime(ServerRuntime):
    """Ollama."""

    name = "ollama"
    Options = Ollama
    normalizes = True
    other_kind = "has no rerankers: there is no such route, and a reranker's file gives meaningless vectors"

    def refusal(self, spec: ModelSpec, options: Ollama) -> Refusal | None:
        """Refuse what Ollama cannot be asked for."""
        if options.address.path.endswith(_LEGACY):
            return Refusal(
                f"is not asked at {_LEGACY}, whose vectors are not normalised and which takes one text at a time and "
                f"cuts it without saying so; give base_url={options.address.without(_LEGACY)!r}",
                "request",
            )
        if options.model is None and spec.served_name(self.name) is None:
            return Refusal(
                f"has no known name for {spec.id}; say what it is called there: Ollama(model=...)", "request"
            )
        return None

    def load(self, request: LoadRequest) -> Model:
        """Reach Ollama."""
        from embrief.servers.ollama import OllamaEmbedder

        return OllamaEmbedder(request).started()


class RerankHttpRuntime(ServerRuntime):
    """Servers with a rerank route."""

    name = "rerank-http"
    Options = RerankHttp
    kinds = (RerankerSpec,)
    other_kind = "reranks, and embeds nothing"

    def refusal(self, spec: ModelSpec, options: RerankHttp) -> Refusal | None:
        """Refuse a template where there is none."""
        if options.template == "client" and isinstance(spec, RerankerSpec) and spec.scoring == "classifier":
            return Refusal(f"has no template for {spec.id}, which reads pairs; leave out template='client'", "request")
        return None

    def renders(self, spec: ModelSpec, options: RerankHttp) -> Any:
        """Return who puts a template around a pair."""
        templated = isinstance(spec, RerankerSpec) and spec.scoring != "classifier"
        return "server" if templated and options.template == "server" else "core"

    def calibrated(self, spec: ModelSpec, options: RerankHttp) -> bool:
        """Return `False` for providers, whose scores say which document is better and not how good it is."""
        return options.address.host not in PROVIDER_KEYS

    def images(self, spec: ModelSpec, options: RerankHttp) -> bool:
        """Return whether it may be a server of embrief's, which takes pictures; that is asked at load."""
        return options.address.host not in PROVIDER_KEYS

    def further_identity(self, options: RerankHttp) -> str:
        """Return what else moves a score."""
        return "" if options.template == "server" else " +template"

    def load(self, request: LoadRequest) -> Model:
        """Reach the server."""
        from embrief.servers.rerank_http import RerankHttpModel

        return RerankHttpModel(request).started()


class HttpSimpleRuntime(ServerRuntime):
    """A service of one's own with a route for texts, and perhaps one for pictures.

    Whether it normalises is not known, and nobody can say that its vectors are raw: `normalize=False` is refused.
    """

    name = "http-simple"
    Options = HttpSimple
    normalizes = True

    def refusal(self, spec: ModelSpec, options: HttpSimple) -> Refusal | None:
        """Refuse a route for pictures where it would do nothing, or where nobody could say the side of an input."""
        if options.image_endpoint is None or not isinstance(spec, EmbeddingSpec):
            return None
        if spec.images is None:
            return Refusal(f"has no use for image_endpoint: {spec.id} takes texts only; leave it out", "request")
        task = spec.prompts.tasks[0]
        if task.query != task.document:
            return Refusal(
                f"cannot say which side of a search an input is on, and {spec.id} has a prompt for each; leave "
                "image_endpoint out, or use a server of embrief's by OpenAI(base_url=...)",
                "request",
            )
        return None

    def images(self, spec: ModelSpec, options: HttpSimple) -> bool:
        """Return whether there is a route for them."""
        return options.image_endpoint is not None

    def renders(self, spec: ModelSpec, options: HttpSimple) -> Any:
        """Return who puts the prompts: nothing can be put before a picture on this side."""
        return "core" if options.image_endpoint is None else "server"

    def further_identity(self, options: HttpSimple) -> str:
        """Return the routes, and what of them is asked and read: another one may be another model."""
        answer = "" if options.answer_field == "auto" else f" answer={options.answer_field}"
        images = "" if options.image_endpoint is None else f" images={options.image_endpoint}"
        one = " one" if options.one_by_one else ""
        return f" {options.text_endpoint} asked={options.request_field}{answer}{images}{one}"

    def load(self, request: LoadRequest) -> Model:
        """Ask nothing yet: such a service has one route, and says nothing of itself."""
        from embrief.servers.http_simple import HttpSimpleEmbedder

        return HttpSimpleEmbedder(request)


class HfInferenceRuntime(ServerRuntime):
    """Hugging Face's own inference provider.

    Only a part of its servers takes notice of `normalize`, so that vectors count as normalised.
    """

    name = "hf-inference"
    requires = ("httpx", "huggingface_hub")
    Options = HfInference
    normalizes = True

    def refusal(self, spec: ModelSpec, options: HfInference) -> Refusal | None:
        """Refuse what is not there, and providers that are asked in another way."""
        if spec.hosted is not None:
            return Refusal(f"serves models that are on the hub, and {spec.id} is not: {spec.elsewhere}")
        if options.model is None and _COMMIT.fullmatch(spec.revision) is None:
            return Refusal(
                f"serves models that are on the hub, and of {spec.id} no commit there is recorded: say what it is "
                "called there, HfInference(model=...)"
            )
        if options.provider == self.name:
            return None
        if (path := _LIKE_OPENAI.get(options.provider)) is not None:
            url = f"{HfInference.default_url}/{options.provider}{path}"
            return Refusal(
                f"asks the provider {self.name!r} alone, and {options.provider!r} is asked as OpenAI is: write "
                f"backend=OpenAI(base_url={url!r}, model=<what the model is called there>)",
                "request",
            )
        known = ", ".join(map(repr, sorted(_LIKE_OPENAI)))
        return Refusal(
            f"asks the provider {self.name!r} alone, and {options.provider!r} is none that is known to embed ({known} "
            "are, and are asked as OpenAI is)",
            "request",
        )

    def load(self, request: LoadRequest) -> Model:
        """Ask nothing yet: the first request wakes the model up.

        Raises:
            UnavailableError: The hub is switched off.
        """
        from embrief.servers.hf_inference import HfInferenceEmbedder

        return HfInferenceEmbedder(request)


RUNTIMES = (
    OpenAIRuntime(),
    TeiRuntime(),
    OllamaRuntime(),
    RerankHttpRuntime(),
    HttpSimpleRuntime(),
    HfInferenceRuntime(),
)
