"""A plugin that runs models on a server with TEI's /embed: a whole runtime, as a third party would write it."""

import os
from dataclasses import dataclass

import httpx
import numpy as np

from embrief import (
    EmbeddingSpec,
    Offer,
    Output,
    RateLimitedError,
    Refusal,
    Remote,
    Runtime,
    RuntimeOptions,
    UnauthorizedError,
    UnavailableError,
    hookimpl,
)


@dataclass(frozen=True, kw_only=True)
class AcmeServer(RuntimeOptions):
    base_url: str = "http://127.0.0.1:8080"
    key_env: str | None = None


class Served(Remote):
    def __init__(self, options):
        self.endpoint = options.base_url
        key = os.environ.get(options.key_env or "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.AsyncClient(base_url=options.base_url, headers=headers, timeout=60)

    async def arun(self, inputs, options):
        body = {"inputs": [item.text for item in inputs], "truncate": not options.refuse_long}
        try:
            answer = await self._client.post("/embed", json=body)
        except httpx.TransportError as error:
            raise UnavailableError(f"{self.endpoint} does not answer: {error!r}") from error
        if answer.status_code == 429:
            after = answer.headers.get("Retry-After")
            raise RateLimitedError(f"{self.endpoint} is busy", retry_after=float(after) if after else None)
        if answer.status_code in (401, 403):
            raise UnauthorizedError(f"{self.endpoint} refuses the key")
        answer.raise_for_status()
        return Output.dense(np.array(answer.json(), np.float32))

    async def aclose(self):
        await self._client.aclose()


class Acme(Runtime):
    name = "acme-server"
    requires = ("httpx",)
    Options = AcmeServer

    def offer(self, spec, ask):
        if not isinstance(spec, EmbeddingSpec):
            return Refusal("embeds only")
        return Offer(device="server", dtype="auto", leaves_machine=True, tells_truncation=False)

    def load(self, request):
        return Served(request.options)


@hookimpl
def register_backends(register):
    register(Acme())
