"""embrief as the client of its own server: the same vectors as in one process."""

from __future__ import annotations

import numpy as np
import pytest

from embrief import Embedder
from embrief.server.app import create_app
from embrief.server.models import ServedModels
from embrief.servers import HttpSimple, OpenAI
from embrief.testing import FakeRuntime


@pytest.mark.parametrize("family", ["qwen3", "gemma"])
def test_the_same_vectors_over_the_wire(on_socket, family):
    """The client puts the prompts around the texts, so the server is asked for `plain` ones."""
    with FakeRuntime() as fake:
        own = Embedder(getattr(fake, family))
        with on_socket(create_app(ServedModels({"m": own}))) as server:
            for backend in (
                OpenAI(base_url=server.openai_url, model="m:plain"),
                HttpSimple(base_url=server.url, model="m:plain"),
                HttpSimple(base_url=server.url, model="m:plain", text_endpoint="/txt/embed"),
                HttpSimple(base_url=server.url, model="m:plain", text_endpoint="/api/embeddings", field="prompt",
                           one_by_one=True),
            ):  # fmt: skip
                there = Embedder(own.settings.model, backend=backend)
                assert there.space == own.space
                np.testing.assert_array_equal(
                    there.embed_queries(["red planet"], instruction="Find"),
                    own.embed_queries(["red planet"], instruction="Find"),
                )
                np.testing.assert_array_equal(
                    there.embed_documents(["red planet", "x"]), own.embed_documents(["red planet", "x"])
                )
