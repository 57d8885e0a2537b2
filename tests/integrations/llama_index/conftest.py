"""A runtime without weights, and recorders of LlamaIndex's two kinds of events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from llama_index.core import Settings
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.span_handlers import BaseSpanHandler

from embrief.testing import FakeRuntime


@pytest.fixture
def fake() -> Iterator[FakeRuntime]:
    with FakeRuntime() as runtime:
        yield runtime


@pytest.fixture(autouse=True)
def fresh_settings() -> Iterator[None]:
    """Undo what a test does to LlamaIndex's global settings."""
    before = Settings._embed_model, Settings._callback_manager
    yield
    Settings._embed_model, Settings._callback_manager = before


class EventRecorder(BaseEventHandler):
    events: list = []  # noqa: RUF012 - a pydantic field, copied for each instance

    @classmethod
    def class_name(cls) -> str:
        return "EventRecorder"

    def handle(self, event, **kwargs) -> None:
        self.events.append(event)

    def names(self) -> list[str]:
        return [event.class_name() for event in self.events if event.class_name() != "SpanDropEvent"]


class SpanRecorder(BaseSpanHandler):
    entered: list = []  # noqa: RUF012 - a pydantic field, copied for each instance

    def new_span(self, id_, bound_args, instance=None, parent_span_id=None, tags=None, **kwargs):
        self.entered.append(id_.rsplit("-", 5)[0])

    def prepare_to_exit_span(self, *args, **kwargs): ...

    def prepare_to_drop_span(self, *args, **kwargs): ...


@pytest.fixture
def events() -> Iterator[EventRecorder]:
    recorder = EventRecorder()
    root = get_dispatcher()
    root.add_event_handler(recorder)
    yield recorder
    root.event_handlers.remove(recorder)


@pytest.fixture
def spans() -> Iterator[SpanRecorder]:
    recorder = SpanRecorder()
    root = get_dispatcher()
    root.add_span_handler(recorder)
    yield recorder
    root.span_handlers.remove(recorder)


class LegacyRecorder(BaseCallbackHandler):
    """The older callbacks."""

    def __init__(self) -> None:
        super().__init__([], [])
        self.started: list[tuple[str, dict]] = []
        self.ended: list[tuple[str, dict]] = []

    def on_event_start(self, event_type, payload=None, event_id="", parent_id="", **kwargs) -> str:
        self.started.append((event_type.value, payload))
        return event_id

    def on_event_end(self, event_type, payload=None, event_id="", **kwargs) -> None:
        self.ended.append((event_type.value, payload))

    def start_trace(self, trace_id=None) -> None: ...

    def end_trace(self, trace_id=None, trace_map=None) -> None: ...


@pytest.fixture
def legacy() -> LegacyRecorder:
    return LegacyRecorder()


@pytest.fixture
def heartbeat():
    """A context in which the longest time that the event loop stood still is measured."""

    @asynccontextmanager
    async def measure() -> AsyncIterator[list[float]]:
        gaps: list[float] = []

        async def beat() -> None:
            last = time.perf_counter()
            while True:
                await asyncio.sleep(0.005)
                now = time.perf_counter()
                gaps.append(now - last)
                last = now

        task = asyncio.create_task(beat())
        await asyncio.sleep(0.02)
        gaps.clear()
        yield gaps
        await asyncio.sleep(0.02)
        task.cancel()

    return measure
