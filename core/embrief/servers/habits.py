"""What each kind of server does to a text, and what is done about it here: the rows of a table in the documentation.

Source: embrief's own, llama-server of llama-cpp-python 0.3.36 and Infinity 0.0.78 as tested; llama_cpp.server of that
package as measured once; of the others documentation and source (OpenAI's, Mistral's, Jina's and Cohere's API
references, vLLM 0.33, text-embeddings-inference 1.9.3, Ollama of August 2026).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """One server's, each in a few words."""

    server: str
    prompt: str
    """Whether it puts a prompt before a text."""
    final_token: str
    """Who decides about the token that a model was trained to see at the end."""
    white_space: str
    """Whether blanks around a text reach the model."""
    normalises: str
    """Whether vectors come with unit length."""
    dims: str
    """What it makes of a request for shorter vectors."""
    over_limit: str
    """What becomes of a text that is too long."""
    model_name: str
    """What it makes of a model's name that it does not have."""
    rerank: str
    """Whether it reranks, and who puts a template around a pair."""
    here: str
    """What is done about it here, besides what is done for all."""
    seen: Literal["real", "payloads"]
    """Whether the tests ask the software itself, or a server that answers with its payloads."""


_UNKNOWN = "not known"

OPENAI = (
    Habits(
        server="OpenAI, Mistral",
        prompt="none",
        final_token="its own",
        white_space=_UNKNOWN,
        normalises="yes",
        dims="cut and normalised",
        over_limit="refused",
        model_name="refused",
        rerank="no",
        here="at most 2048 texts and about 300,000 tokens per request",
        seen="payloads",
    ),
    Habits(
        server="vLLM",
        prompt="none",
        final_token="tokenizer.json",
        white_space="kept",
        normalises="yes",
        dims=_UNKNOWN,
        over_limit="refused",
        model_name="refused",
        rerank="yes, with the template it was started with",
        here="its limit of tokens is read from its list of models",
        seen="payloads",
    ),
    Habits(
        server="llama-server",
        prompt="none",
        final_token="a flag in the file, often missing",
        white_space="kept",
        normalises="yes",
        dims="ignored",
        over_limit="refused",
        model_name="any is taken",
        rerank="yes, with the template in the file",
        here="the final token is appended where the file leaves it out; files that end texts with another token, have "
        "another width, or are rerankers are refused; requests that do not fit together are made smaller",
        seen="real",
    ),
    Habits(
        server="llama_cpp.server",
        prompt="none",
        final_token="a flag in the file; lost when cut",
        white_space="kept",
        normalises="no",
        dims="ignored",
        over_limit="cut silently",
        model_name=_UNKNOWN,
        rerank="no",
        here="a cut is seen in `usage` if the tokenizer is at hand, and refused; `final_token='append'`",
        seen="payloads",
    ),
    Habits(
        server="Infinity",
        prompt="none",
        final_token="tokenizer.json",
        white_space="**removed**",
        normalises="yes",
        dims="cut, not normalised",
        over_limit="cut silently",
        model_name="any is taken",
        rerank="yes, without a template",
        here="nothing can be done about white space: Qwen3 rerankers, whose template ends with some, are refused; "
        "`usage`, which counts letters, is not taken for a cut",
        seen="real",
    ),
    Habits(
        server="embrief serve",
        prompt="by the role that is asked for",
        final_token="as the model was trained",
        white_space="kept",
        normalises="yes",
        dims="cut and normalised",
        over_limit="cut, and said",
        model_name="refused",
        rerank="yes, with the model's template",
        here="it is asked for `NAME:plain`, on whichever of its routes, so that it adds no prompt, and to cut nothing; "
        "names with another role are refused; scores are read as probabilities without a probe",
        seen="real",
    ),
)

TEI = (
    Habits(
        server="text-embeddings-inference",
        prompt="none, unless it was started with one",
        final_token="tokenizer.json",
        white_space="kept",
        normalises="by default",
        dims="cut and normalised",
        over_limit="cut silently by default",
        model_name="it has one model",
        rerank="yes, without a template",
        here="cutting and normalising are switched off in every request; another model, pooling or kind, and a number "
        "format that is wrong for it, are refused, and so are Qwen3 rerankers",
        seen="payloads",
    ),
)

OLLAMA = (
    Habits(
        server="Ollama",
        prompt="none",
        final_token="a flag in the file, often missing",
        white_space="kept",
        normalises="yes",
        dims="cut and normalised",
        over_limit="cut silently by default, twice",
        model_name="refused",
        rerank="no",
        here="cutting is switched off, context and batch are set to `max_tokens`; the final token is appended where "
        "the file leaves it out; another width or pooling is refused",
        seen="payloads",
    ),
)

RERANK = (
    Habits(
        server="Jina, Cohere",
        prompt="–",
        final_token="–",
        white_space=_UNKNOWN,
        normalises="–",
        dims="–",
        over_limit=_UNKNOWN,
        model_name="refused",
        rerank="yes; scores that are no probabilities",
        here='`info()["calibrated"]` is false',
        seen="payloads",
    ),
)

SIMPLE = (
    Habits(
        server="a service of one's own",
        prompt=_UNKNOWN,
        final_token=_UNKNOWN,
        white_space=_UNKNOWN,
        normalises=_UNKNOWN,
        dims="not asked",
        over_limit=_UNKNOWN,
        model_name="not sent",
        rerank="no",
        here="every usual form of answer is read; `embrief parity` is the way to know it",
        seen="payloads",
    ),
)

HUB = (
    Habits(
        server="Hugging Face's inference provider",
        prompt="none, unless it was started with one",
        final_token="tokenizer.json",
        white_space="kept",
        normalises="where it is asked to",
        dims="not asked",
        over_limit="refused where it listens to `truncate`",
        model_name="refused",
        rerank="no",
        here="cutting is switched off in every request; a start is waited for; a vector per token is refused",
        seen="payloads",
    ),
)

HABITS = {
    "openai": OPENAI,
    "tei": TEI,
    "ollama": OLLAMA,
    "rerank-http": RERANK,
    "http-simple": SIMPLE,
    "hf-inference": HUB,
}
"""By the runtime's name."""
