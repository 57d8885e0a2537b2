"""Numbers for Prometheus. Their labels are names of routes, models and errors: so many and no more, never a text."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from embrief.facades.embedder import Embedder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from embrief.server.models import ServedModels
    from embrief.server.shapes import Shapes

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """The numbers of one server."""

    def __init__(self, models: ServedModels) -> None:
        """Count from zero, apart from other servers of the process."""
        self._registry = registry = CollectorRegistry()
        self.seconds = Histogram(
            "embrief_request_seconds",
            "Time from a request's headers to the end of its answer.",
            ["route", "method", "status"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._errors = Counter(
            "embrief_errors", "Answers that are errors, by their code.", ["route", "code"], registry=registry
        )
        self._waiting = Gauge("embrief_requests_waiting", "Requests that are worked on or wait.", registry=registry)
        self._dropped = Counter(
            "embrief_requests_dropped", "Requests whose work was dropped, by why.", ["reason"], registry=registry
        )
        self._texts = Counter("embrief_texts", "Texts embedded.", ["model", "role"], registry=registry)
        self._tokens = Counter("embrief_tokens", "Tokens of texts embedded, as counted.", ["model"], registry=registry)
        self._pairs = Counter("embrief_pairs", "Documents scored.", ["model"], registry=registry)
        self._images = Counter("embrief_images", "Pictures embedded or scored.", ["model"], registry=registry)
        registry.register(_Models(models))

    def waiting(self, count: int) -> None:
        """Note how many requests there are."""
        self._waiting.set(count)

    def dropped(self, reason: str) -> None:
        """Note a request whose work was dropped."""
        self._dropped.labels(reason).inc()

    def failed(self, route: str, code: str) -> None:
        """Note an error."""
        self._errors.labels(route, code).inc()

    def embedded(self, model: str, role: str, texts: int, tokens: int | None) -> None:
        """Note texts that were embedded."""
        self._texts.labels(model, role).inc(texts)
        if tokens is not None:
            self._tokens.labels(model).inc(tokens)

    def scored(self, model: str, documents: int) -> None:
        """Note documents that were scored."""
        self._pairs.labels(model).inc(documents)

    def seen(self, model: str, images: int) -> None:
        """Note pictures that were embedded or scored."""
        if images:
            self._images.labels(model).inc(images)

    def text(self) -> bytes:
        """Return all of it, as Prometheus reads it."""
        return generate_latest(self._registry)


class _Models(Collector):
    """What models tell when somebody asks."""

    def __init__(self, models: ServedModels) -> None:
        self._models = models

    def describe(self) -> list[Metric]:
        """Say nothing before it is asked for: models may not be loaded yet."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the numbers of all models."""
        batch = GaugeMetricFamily("embrief_batch_tokens", "Tokens that one batch may have.", labels=["model"])
        looked = CounterMetricFamily("embrief_cache_texts", "Texts looked up in the cache.", labels=["model", "found"])
        for served in self._models.all():
            if tokens := served.batch_tokens:
                batch.add_metric([served.name], tokens)
            counts = served.facade.cache_counts if isinstance(served.facade, Embedder) else None
            for found, count in zip(("yes", "no"), counts or (), strict=False):
                looked.add_metric([served.name, found], count)
        yield batch
        yield looked


class Measured:
    """Times every request, around everything."""

    def __init__(self, app: ASGIApp, metrics: Metrics, shapes: Shapes) -> None:
        """Stand around an application."""
        self._app, self._metrics, self._shapes = app, metrics, shapes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and note how long it took."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        # Of a caller who left before the answer began.
        status = "499"

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        state = scope.setdefault("state", {})
        route = self._shapes.label(scope["path"])
        method = scope["method"] if scope["method"] in _METHODS else "other"
        try:
            await self._app(scope, receive, sent)
        finally:
            spent = time.perf_counter() - start
            self._metrics.seconds.labels(route, method, status).observe(spent)
            if "failure" in state:
                self._metrics.failed(route, state["failure"])
