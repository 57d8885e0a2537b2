"""How each kind of server speaks, for the checks of `embrief.testing`: requests and answers as their sources say.

OpenAI: API reference of embeddings. TEI: its OpenAPI description at 1.9.3. Ollama: docs/api.md of August 2026. Rerank:
the references of Cohere (v2) and Jina. hf-inference: huggingface_hub 1.33 (inference/_providers/hf_inference.py).
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence
from typing import Any

from embrief.servers import HfInference, HttpSimple, Ollama, OpenAI, RerankHttp, Tei
from embrief.testing import Asked, Reply, Wire

EMBEDDER = "Qwen/Qwen3-Embedding-0.6B"
RERANKER = "BAAI/bge-reranker-v2-m3"


class OpenAIWire(Wire):
    indexed = True

    def options(self, base_url: str, *, timeout: float, in_flight: int) -> OpenAI:
        return OpenAI(base_url=f"{base_url}/v1", timeout=timeout, in_flight=in_flight, batch_rows=8)

    def texts(self, asked: Asked) -> list[str] | None:
        return asked.body["input"] if asked.path == "/v1/embeddings" else None

    def answer(self, asked: Asked, rows: Sequence[Any], indexes: Sequence[int]) -> Any:
        data = [self.item(asked, row, index) for row, index in zip(rows, indexes, strict=True)]
        return {"object": "list", "data": data, "model": asked.body["model"], "usage": {"prompt_tokens": 1}}

    @staticmethod
    def item(asked: Asked, row: Any, index: int) -> Any:
        base64_asked = asked.body.get("encoding_format") == "base64"
        if base64_asked and row is not None and None not in row:
            row = base64.b64encode(struct.pack(f"<{len(row)}f", *row)).decode()
        return {"object": "embedding", "index": index, "embedding": row}

    def about(self, asked: Asked) -> Reply:
        if asked.path == "/v1/models":
            return Reply({"object": "list", "data": [{"id": EMBEDDER, "object": "model", "owned_by": "vllm"}]})
        return super().about(asked)


class FloatWire(OpenAIWire):
    """As servers do that take no notice of `encoding_format`."""

    @staticmethod
    def item(asked: Asked, row: Any, index: int) -> Any:
        return {"index": index, "embedding": row}


class TeiWire(Wire):
    def options(self, base_url: str, *, timeout: float, in_flight: int) -> Tei:
        return Tei(base_url=base_url, timeout=timeout, in_flight=in_flight)

    def texts(self, asked: Asked) -> list[str] | None:
        return asked.body["inputs"] if asked.path == "/embed" else None

    def answer(self, asked: Asked, rows: Sequence[Any], indexes: Sequence[int]) -> Any:
        return list(rows)

    def about(self, asked: Asked) -> Reply:
        return Reply(tei_info()) if asked.path == "/info" else super().about(asked)


def tei_info(**changes: Any) -> dict[str, Any]:
    """`GET /info` of text-embeddings-inference 1.9.3."""
    return {
        "model_id": EMBEDDER,
        "model_sha": None,
        "model_dtype": "float32",
        "model_type": {"embedding": {"pooling": "last_token"}},
        "max_concurrent_requests": 512,
        "max_input_length": 32768,
        "max_batch_tokens": 65536,
        "max_batch_requests": None,
        "max_client_batch_size": 8,
        "auto_truncate": True,
        "tokenization_workers": 8,
        "version": "1.9.3",
        "sha": "0d124dc",
        "docker_label": "sha-0d124dc",
        **changes,
    }


class TeiRerankWire(TeiWire):
    indexed = True

    def texts(self, asked: Asked) -> list[str] | None:
        return asked.body["texts"] if asked.path == "/rerank" else None

    def answer(self, asked: Asked, rows: Sequence[Any], indexes: Sequence[int]) -> Any:
        # In the order of the scores.
        pairs = sorted(zip(indexes, rows, strict=True), key=lambda pair: -(pair[1] or 0.0))
        return [{"index": index, "score": score} for index, score in pairs]

    def about(self, asked: Asked) -> Reply:
        labels = {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}
        return Reply(tei_info(model_id=RERANKER, model_type=labels)) if asked.path == "/info" else super().about(asked)


class OllamaWire(Wire):
    def options(self, base_url: str, *, timeout: float, in_flight: int) -> Ollama:
        return Ollama(base_url=base_url, timeout=timeout, in_flight=in_flight, batch_rows=8, model="q")

    def texts(self, asked: Asked) -> list[str] | None:
        return asked.body["input"] if asked.path == "/api/embed" else None

    def answer(self, asked: Asked, rows: Sequence[Any], indexes: Sequence[int]) -> Any:
        return {"model": "q", "embeddings": list(rows), "total_duration": 1, "load_duration": 1, "prompt_eval_count": 9}

    def about(self, asked: Asked) -> Reply:
        return Reply(ollama_show()) if asked.path == "/api/show" else super().about(asked)


def ollama_show(**changes: Any) -> dict[str, Any]:
    """`POST /api/show`, the parts that are read."""
    return {
        "details": {"family": "qwen3", "parameter_size": "595.78M", "quantization_level": "Q8_0"},
        "model_info": {
            "general.architecture": "qwen3",
            "qwen3.context_length": 32768,
            "qwen3.embedding_length": 1024,
            "qwen3.pooling_type": 3,
            "tokenizer.ggml.add_eos_token": True,
            "tokenizer.ggml.eos_token_id": 151643,
            **changes,
        },
    }


class RerankWire(Wire):
    """Cohere's and Jina's shape, with probabilities."""

    indexed = True

    def options(self, base_url: str, *, timeout: float, in_flight: int) -> RerankHttp:
        return RerankHttp(base_url=f"{base_url}/v1", timeout=timeout, in_flight=in_flight, batch_rows=8)

    def texts(self, asked: Asked) -> list[str] | None:
        return asked.body["documents"] if asked.path == "/v1/rerank" else None

    def answer(self, asked: Asked, rows: Sequence[Any], indexes: Sequence[int]) -> Any:
        results = [{"index": index, "relevance_score": row} for index, row in zip(indexes, rows, strict=True)]
        return {"id": "r", "results": sorted(results, key=lambda item: -(item["relevance_score"] or 0.0))}

    def score(self, value: float) -> float:
        return 1 / (1 + math.exp(-value))


class LogOddsWire(RerankWire):
    """llama-server with a reranker of BERT's kind: raw log-odds."""

    def score(self, value: float) -> float:
        return value


class SimpleWire(Wire):
    """`POST /encode {"texts": [...]}`."""

    def options(self, base_url: str, *, timeout: float, in_flight: int) -> HttpSimple:
        return HttpSimple(base_url=base_url, timeout=timeout, in_flight=in_flight, batch_rows=8)

    def texts(self, asked: Asked) -> list[str] | None:
        return asked.body["texts"] if asked.path == "/encode" else None

    def answer(self, asked: Asked, rows: Sequence[Any], indexes: Sequence[int]) -> Any:
        return {"embeddings": list(rows), "dim": 1024}


class SingleWire(SimpleWire):
    """`POST /txt/embed {"input": "..."}`, one text each."""

    one_by_one = True

    def options(self, base_url: str, *, timeout: float, in_flight: int) -> HttpSimple:
        return HttpSimple(
            base_url=base_url, timeout=timeout, in_flight=in_flight, text_endpoint="/txt/embed", one_by_one=True
        )

    def texts(self, asked: Asked) -> list[str] | None:
        return [asked.body["input"]] if asked.path == "/txt/embed" else None

    def answer(self, asked: Asked, rows: Sequence[Any], indexes: Sequence[int]) -> Any:
        return {"embedding": rows[0], "space_id": "s"}


class ItemsWire(SimpleWire):
    """A form of its own, which the options describe."""

    indexed = True

    def options(self, base_url: str, *, timeout: float, in_flight: int) -> HttpSimple:
        return HttpSimple(
            base_url=base_url,
            timeout=timeout,
            in_flight=in_flight,
            batch_rows=8,
            answer_field="result.items[].values.v",
        )

    def answer(self, asked: Asked, rows: Sequence[Any], indexes: Sequence[int]) -> Any:
        items = [{"index": index, "values": {"v": row}} for index, row in zip(indexes, rows, strict=True)]
        return {"result": {"items": items}}


class HfWire(Wire):
    def options(self, base_url: str, *, timeout: float, in_flight: int) -> HfInference:
        return HfInference(base_url=base_url, timeout=timeout, in_flight=in_flight, batch_rows=8)

    def texts(self, asked: Asked) -> list[str] | None:
        here = asked.path == f"/hf-inference/models/{EMBEDDER}/pipeline/feature-extraction"
        return asked.body["inputs"] if here else None

    def answer(self, asked: Asked, rows: Sequence[Any], indexes: Sequence[int]) -> Any:
        return list(rows)


WIRES: dict[str, tuple[Wire, str]] = {
    "openai": (OpenAIWire(), EMBEDDER),
    "openai, floats": (FloatWire(), EMBEDDER),
    "tei": (TeiWire(), EMBEDDER),
    "tei, reranker": (TeiRerankWire(), RERANKER),
    "ollama": (OllamaWire(), EMBEDDER),
    "rerank-http": (RerankWire(), RERANKER),
    "rerank-http, log-odds": (LogOddsWire(), RERANKER),
    "http-simple": (SimpleWire(), EMBEDDER),
    "http-simple, single": (SingleWire(), EMBEDDER),
    "http-simple, items": (ItemsWire(), EMBEDDER),
    "hf-inference": (HfWire(), EMBEDDER),
}
