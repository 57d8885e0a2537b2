"""Ollama's former route, `POST /api/embeddings {model, prompt}`, which old clients still ask.

Ollama does not normalise there; vectors have unit length here as everywhere.
"""

from typing import Any

from fastapi import Response
from pydantic import BaseModel

from embrief.server.asking import asked
from embrief.server.dialects.base import Dialect
from embrief.server.dialects.fields import Text
from embrief.server.dialects.ollama import model_of
from embrief.server.failures import Problem
from embrief.server.service import ServiceOf
from embrief.server.work import answer, embed


def error(problem: Problem) -> tuple[int, Any]:
    """Return an error as Ollama says it: a sentence."""
    return problem.status, {"error": problem.message}


DIALECT = Dialect("ollama-former", error)


class PromptRequest(BaseModel):
    """What POST /api/embeddings is asked. Its other fields are let pass."""

    model: Text
    prompt: Text = ""


@DIALECT.router.post("/api/embeddings")
async def embeddings(body: PromptRequest, service: ServiceOf) -> Response:
    """Embed one text; an empty one has no vector there."""
    served, role = model_of(service, body.model)
    if not body.prompt:
        return await answer({"embedding": []})
    ask = asked(served, service.default_role, name_role=role)
    result = await embed(service, served, [body.prompt], ask)
    return await answer({"embedding": result.vectors[0].tolist()})
