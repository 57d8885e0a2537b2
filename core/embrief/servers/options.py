"""What users may say about a server: where it is, what it calls the model, how long to wait. Never a secret."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from embrief.errors import ArgumentError, ArgumentTypeError
from embrief.runtimes.base import RuntimeOptions
from embrief.servers.address import Address, parse_address
from embrief.servers.keys import check_names

LONGEST_WAIT = 120.0
"""Seconds: a server that asks to be left alone for longer is not waited for."""
_PATH = re.compile(r"/[!-\"$-~]*")


@dataclass(frozen=True, kw_only=True)
class ServerOptions(RuntimeOptions):
    """What all servers have in common."""

    base_url: str | None = None
    """Address of the server, such as `"http://127.0.0.1:8080"`."""
    model: str | None = None
    """What the server calls the model; by default what is recorded, or the model's id."""
    api_key_env: str | None = None
    """Name of the variable that holds the key; it ends in `_API_KEY`, `_TOKEN` or `_KEY`. The key goes to the scheme,
    host and port of `base_url` only, and over http to this machine only."""
    api_key_file: str | None = None
    """A file with the key, in place of a variable."""
    timeout: float = 60.0
    """Seconds for one answer."""
    connect_timeout: float = 5.0
    """Seconds to reach the server."""
    deadline: float | None = None
    """Seconds for a whole call with all its requests, tries and waits; `None`: ten minutes for each request with all
    its tries."""
    tries: int = 4
    """How often a request is made that meets a busy or absent server. What would fail again is never repeated."""
    in_flight: int = 8
    """Requests at once, of all models at this address."""
    batch_rows: int | None = None
    """Texts in one request; by default what the server takes."""
    requests_per_minute: int | None = None
    """Kept before the server says that it is too much."""
    tokens_per_minute: int | None = None
    """The same; counted with the model's tokenizer where it is at hand, else one token for two bytes, until the server
    says how many there were."""
    tokenizer: str | None = None
    """The model's tokenizer.json, or a folder that holds it, to count and cut texts with. By default the one that comes
    with the model or is in the hub's cache."""

    default_url: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            ArgumentError: A value cannot work.
            ArgumentTypeError: A value has the wrong type.
        """
        super().__post_init__()
        name = type(self).__name__
        for what in ("base_url", "model", "api_key_env", "api_key_file", "tokenizer"):
            value = getattr(self, what)
            if value is not None and (not isinstance(value, str) or not value.strip()):
                raise ArgumentTypeError(f"{name}({what}={value!r}) must be a text that is not empty, or None")
        for what in ("timeout", "connect_timeout", "deadline"):
            value = getattr(self, what)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (number and 0 < value < 1e6) and not (value is None and what == "deadline"):
                raise ArgumentError(f"{name}({what}={value!r}) must be a number of seconds greater than 0")
        for what in ("tries", "in_flight", "batch_rows", "requests_per_minute", "tokens_per_minute"):
            value = getattr(self, what)
            optional = what not in ("tries", "in_flight")
            if not (isinstance(value, int) and not isinstance(value, bool) and value > 0) and not (
                value is None and optional
            ):
                raise ArgumentError(f"{name}({what}={value!r}) must be a whole number greater than 0")
        check_names(self.api_key_env, self.api_key_file, self.address)

    @property
    def address(self) -> Address:
        """Return where the server is.

        Raises:
            ArgumentError: It is not said.
        """
        url = self.base_url or self._known_url()
        if url is None:
            raise ArgumentError(f"{type(self).__name__} needs base_url=, such as 'http://127.0.0.1:8080'")
        return parse_address(url)

    def _known_url(self) -> str | None:
        return self.default_url


@dataclass(frozen=True, kw_only=True)
class OpenAI(ServerOptions):
    """A server with OpenAI's `/embeddings`: OpenAI, Mistral, vLLM, llama-server, Infinity, LM Studio, mistral.rs.

    `base_url` is the part before `/embeddings`, mostly with `/v1` at its end.
    """

    final_token: Literal["server", "append"] = "server"
    """Who puts the token behind a text that the model was trained with: `"append"` for a server that leaves it out, as
    files in GGUF format without `add_eos_token` make it."""
    encoding: Literal["base64", "float"] = "base64"
    """How vectors are asked for. What comes is read either way."""

    default_url = "https://api.openai.com/v1"

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        super().__post_init__()
        _one_of(self, "final_token", ("server", "append"))
        _one_of(self, "encoding", ("base64", "float"))


@dataclass(frozen=True, kw_only=True)
class Tei(ServerOptions):
    """Hugging Face's text-embeddings-inference, 1.5 or later: embeddings and rerankers."""


@dataclass(frozen=True, kw_only=True)
class Ollama(ServerOptions):
    """Ollama's `/api/embed`. Without `base_url`, the variable `OLLAMA_HOST` says where it is, or port 11434 here."""

    keep_alive: str | None = None
    """How long Ollama keeps the model in memory, such as `"10m"`; by default Ollama decides."""

    default_url = "http://127.0.0.1:11434"

    def _known_url(self) -> str | None:
        host = os.environ.get("OLLAMA_HOST", "").strip().strip("'\"")
        if not host:
            return self.default_url
        scheme, mark, rest = host.rpartition("://")
        place, slash, path = rest.partition("/")
        name, colon, port = place.rpartition(":")
        if place.count(":") > 1 and "]" not in place:
            # An IPv6 address by itself.
            name, port = f"[{place}]", ""
        elif not colon or "]" in port:
            name, port = place, ""
        port = port or {"https": "443", "http": "80"}.get(scheme, "11434")
        # What a server listens on is no address to call.
        name = "127.0.0.1" if name in ("0.0.0.0", "[::]", "") else name  # noqa: S104
        return f"{scheme if mark else 'http'}://{name}:{port}{slash}{path}"


@dataclass(frozen=True, kw_only=True)
class RerankHttp(ServerOptions):
    """A server with a rerank route: Jina, Cohere, vLLM, llama-server, Infinity.

    `base_url` is the part before `/rerank`.
    """

    template: Literal["server", "client"] = "server"
    """Who puts a Qwen3 reranker's template around query and document. A server that does it can follow no instruction
    but the model's own; `"client"` is for servers that put query and document together as they are. Infinity is none:
    it takes white space off both."""
    probe: Literal["refuse", "off"] = "refuse"
    """Whether a server is refused that scores two pairs, one of which answers its query, nearly alike: files without a
    score head give numbers that mean nothing. Providers' own services are not asked."""
    scores: Literal["auto", "probability", "log_odds"] = "auto"
    """What the server's numbers are; `"auto"` sees it from those two pairs, and takes those of providers for
    probabilities."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        super().__post_init__()
        _one_of(self, "template", ("server", "client"))
        _one_of(self, "probe", ("refuse", "off"))
        _one_of(self, "scores", ("auto", "probability", "log_odds"))


@dataclass(frozen=True, kw_only=True)
class HttpSimple(ServerOptions):
    """A service of one's own: a POST with texts, an answer with vectors.

    The answer may be a list of vectors, or hold them as `embeddings`, `embedding`, `vector`, `vectors` or
    `data[].embedding`. embrief puts the prompts around the texts, so the service must put none; one that also has a
    route for pictures puts all of them, since nothing can be put before a picture here. `model` goes along as `model`,
    where it is given.
    """

    text_endpoint: str = "/encode"
    """Path behind `base_url`."""
    image_endpoint: str | None = None
    """The same for pictures, such as `/img/embed`: each is sent as PNG in base64, in the field that texts have.
    `None`: the service takes texts only."""
    field: str = "auto"
    """What the request calls the texts; `"auto"`: `input` for a path that ends in `/embed`, else `texts`, or `text`
    with `one_by_one`."""
    answer_field: str = "auto"
    """Where the answer holds the vectors: a name, or names with dots between, such as `"result.vectors"` or
    `"items[].vector"`; `"auto"` looks for the usual ones."""
    one_by_one: bool = False
    """Whether the service takes one text per request, as a plain string."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        super().__post_init__()
        if _PATH.fullmatch(_text(self, "text_endpoint")) is None:
            raise ArgumentError(
                f"HttpSimple(text_endpoint={self.text_endpoint!r}) must be a path behind base_url, such as '/txt/embed'"
            )
        if self.image_endpoint is not None and _PATH.fullmatch(_text(self, "image_endpoint")) is None:
            raise ArgumentError(
                f"HttpSimple(image_endpoint={self.image_endpoint!r}) must be a path behind base_url, such as "
                "'/img/embed', or None"
            )
        for what in ("field", "answer_field"):
            if not all(_text(self, what).split(".")):
                raise ArgumentError(f"HttpSimple({what}={getattr(self, what)!r}) must be a name, or 'auto'")
        flag: object = self.one_by_one
        if not isinstance(flag, bool):
            raise ArgumentTypeError(f"HttpSimple(one_by_one={flag!r}) must be True or False")
        if self.one_by_one and self.batch_rows not in (None, 1):
            raise ArgumentError(
                f"HttpSimple(one_by_one=True, batch_rows={self.batch_rows}) says two things: one text per request, and "
                "more; leave one out"
            )
        if self.field == "model":
            raise ArgumentError("HttpSimple(field='model') is the name of the model, and not of the texts")

    @property
    def request_field(self) -> str:
        """Return what the request calls the texts."""
        return self.field_of(self.text_endpoint)

    def field_of(self, path: str) -> str:
        """Return what a request to a path calls its inputs."""
        if self.field != "auto":
            return self.field
        if path.partition("?")[0].rstrip("/").endswith("/embed"):
            return "input"
        return "text" if self.one_by_one else "texts"


@dataclass(frozen=True, kw_only=True)
class HfInference(ServerOptions):
    """Hugging Face's own inference provider, behind the hub's router.

    The token comes from the variable `HF_TOKEN`, for the router alone. `base_url` is for a gateway before it; a
    dedicated endpoint runs text-embeddings-inference and is asked with `Tei`.
    """

    provider: str = "hf-inference"
    """The provider's name. Others that embed are asked as OpenAI is, and a message says how."""

    default_url = "https://router.huggingface.co"

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        super().__post_init__()
        _text(self, "provider")


def _text(options: ServerOptions, what: str) -> str:
    value = getattr(options, what)
    if not isinstance(value, str) or not value.strip():
        raise ArgumentTypeError(f"{type(options).__name__}({what}={value!r}) must be a text that is not empty")
    return value


def _one_of(options: ServerOptions, what: str, allowed: tuple[str, ...]) -> None:
    value = getattr(options, what)
    if value not in allowed:
        raise ArgumentError(
            f"{type(options).__name__}({what}={value!r}) is not known; use {' or '.join(map(repr, allowed))}"
        )
