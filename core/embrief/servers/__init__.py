"""Models on servers, one class of options per kind: `Embedder(ID, backend=Tei(base_url="http://gpu:8080"))`."""

from embrief.servers.built_in import RUNTIMES
from embrief.servers.options import HfInference, HttpSimple, Ollama, OpenAI, RerankHttp, ServerOptions, Tei

__all__ = ["RUNTIMES", "HfInference", "HttpSimple", "Ollama", "OpenAI", "RerankHttp", "ServerOptions", "Tei"]
