"""Models on servers, one class of options per kind: `Embedder(ID, backend=Tei(base_url="http://gpu:8080"))`."""

from embrief.servers.ollama import OllamaRuntime
from embrief.servers.openai import OpenAIRuntime
from embrief.servers.options import HfInference, HttpSimple, Ollama, OpenAI, RerankHttp, ServerOptions, Tei
from embrief.servers.rerank_http import RerankHttpRuntime
from embrief.servers.tei import TeiRuntime

RUNTIMES = (OpenAIRuntime(), TeiRuntime(), OllamaRuntime(), RerankHttpRuntime())

__all__ = ["HfInference", "HttpSimple", "Ollama", "OpenAI", "RerankHttp", "ServerOptions", "Tei"]
