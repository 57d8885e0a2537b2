"""Providers: the words for where a model runs, and what each of them is here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from embrief.servers.options import HfInference, HttpSimple, Ollama, OpenAI, RerankHttp, ServerOptions, Tei


@dataclass(frozen=True, slots=True)
class Provider:
    """What one word means."""

    means: str
    """For the documentation."""
    embeds: type[ServerOptions] | None = None
    """The kind of server for embedding models; `None`: there is none, or the model runs in this process."""
    reranks: type[ServerOptions] | None = None
    """The kind of server for rerankers."""
    base_url: str | None = None
    """Where such servers listen unless told otherwise."""
    rerank_url: str | None = None
    """The same for rerankers, where it differs."""
    hosted: bool = False
    """Whether `base_url` is a company's, which knows its models by its own names only."""
    backend: str | None = None
    """The runtime in this process; `None`: the best one."""

    @property
    def in_process(self) -> bool:
        """Return whether the model runs in this process."""
        return self.embeds is None and self.reranks is None


PROVIDERS: Mapping[str, Provider] = {
    "native": Provider("in this process, by the best runtime: a recorded name, a folder or an id on the hub"),
    "huggingface": Provider("the same"),
    "local": Provider(
        "with `base_url` what `http-simple` is, with `model_id` what `native` is, with neither what `hash` is"
    ),
    "engine": Provider("in this process, by embrief's own engine", backend="engine"),
    "sentence-transformers": Provider("in this process, by sentence-transformers", backend="sentence-transformers"),
    "hash": Provider("in this process: the lexical model `embrief/hash`", backend="hash"),
    "openai": Provider("OpenAI, or with `base_url` any server like it", OpenAI, RerankHttp, None, hosted=True),
    "mistral": Provider("Mistral's API", OpenAI, None, "https://api.mistral.ai/v1", hosted=True),
    "cohere": Provider("Cohere's rerankers", None, RerankHttp, "https://api.cohere.com/v2", hosted=True),
    "jina": Provider("Jina's API", OpenAI, RerankHttp, "https://api.jina.ai/v1", hosted=True),
    "hf-inference": Provider("Hugging Face's inference providers", HfInference, None, None, hosted=True),
    "tei": Provider("text-embeddings-inference", Tei, Tei),
    "ollama": Provider("Ollama, where `OLLAMA_HOST` says or here", Ollama, None),
    "vllm": Provider("vLLM", OpenAI, RerankHttp, "http://127.0.0.1:8000/v1"),
    "llama-server": Provider("llama.cpp's server", OpenAI, RerankHttp, "http://127.0.0.1:8080/v1"),
    "infinity": Provider("Infinity", OpenAI, RerankHttp, "http://127.0.0.1:7997"),
    "lmstudio": Provider("LM Studio", OpenAI, None, "http://127.0.0.1:1234/v1"),
    "rerank-http": Provider("a server with a rerank route", None, RerankHttp),
    "http-simple": Provider("a service of one's own with a route for texts", HttpSimple, None),
}

PROVIDER_ALIASES: Mapping[str, str] = {
    "hf": "huggingface", "llamacpp": "llama-server", "llama.cpp": "llama-server", "llama-cpp": "llama-server",
    "text-embeddings-inference": "tei", "lm-studio": "lmstudio", "sbert": "sentence-transformers",
    "hugging-face": "huggingface", "openai-compatible": "openai", "huggingface-inference": "hf-inference",
    "mistralai": "mistral", "http": "http-simple",
}  # fmt: skip


def provider_name(text: str) -> str:
    """Return a provider's name as it is here; the text in lower case where it is none."""
    name = text.strip().lower().replace("_", "-")
    return PROVIDER_ALIASES.get(name, name)
