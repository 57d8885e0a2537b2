"""The OpenAPI document, and what comes of requests that are made from it."""

from __future__ import annotations

import pytest

from embrief import Embedder, Reranker
from embrief.server.app import create_app
from embrief.server.models import ServedModels

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
hypothesis = pytest.importorskip("hypothesis")

from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.generation.modes import GenerationMode  # noqa: E402

app = create_app(
    ServedModels({"hash": Embedder("embrief/hash", dim=64)}, {"rank": Reranker("embrief/tiny-reranker")}), lazy=True
)
schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers={"host": "127.0.0.1"})
schema.config.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])


@schema.parametrize()
@hypothesis.settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)
def test_no_request_breaks_it(case):
    if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
        # Else hardly any would get beyond its name.
        case.body["model"] = "rank" if "query" in case.body else "hash"
    got = case.call(headers={"host": "127.0.0.1"})
    if got.status_code == 503:
        assert int(got.headers["retry-after"][0]) > 0
    else:
        case.validate_response(got, checks=[not_a_server_error])


def test_the_document_has_every_route():
    paths = app.openapi()["paths"]
    for path in (
        "/v1/embeddings",
        "/v1/models",
        "/v1/embeddings/generate",
        "/encode",
        "/txt/embed",
        "/img/embed",
        "/api/embeddings",
    ):
        assert path in paths
    said = paths["/v1/embeddings"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert said == {"$ref": "#/components/schemas/EmbeddingsRequest"}
