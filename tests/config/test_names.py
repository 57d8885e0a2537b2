"""What a name means in a constructor: recorded ids, configured names, references, and what wins over what."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass

import pytest

from embrief import (
    ArgumentError,
    ConfigError,
    Embedder,
    Offer,
    Registry,
    Reranker,
    Runtime,
    RuntimeOptions,
    UnauthorizedError,
    UnavailableError,
    UnknownModelError,
    load_config,
    plugins,
    use_config,
)
from embrief.runtimes.engine_options import EngineOptions
from embrief.servers import HttpSimple, Ollama, OpenAI, RerankHttp, Tei

QWEN, BGE, JUDGE = "Qwen/Qwen3-Embedding-0.6B", "BAAI/bge-m3", "Qwen/Qwen3-Reranker-0.6B"
URL = "http://127.0.0.1:8080"
BGE_JUDGE = "BAAI/bge-reranker-v2-m3"
SHA = "a" * 40


def test_a_configured_name(use):
    use("models: {small: {provider: hash, dim: 64, truncate: error, max_tokens: 50, normalize: false}}")
    embedder = Embedder("small")
    assert (
        embedder.settings == Embedder("embrief/hash", dim=64, truncate="error", max_tokens=50, normalize=False).settings
    )
    assert embedder.embed_query("q").shape == (64,)


def test_the_call_wins_over_the_configuration_even_with_a_default(use):
    use(
        "models: {small: {provider: hash, dim: 64, truncate: error, normalize: false, device: cpu}}".replace(
            ", device: cpu", ""
        )
    )
    assert Embedder("small", dim=32).dim == 32
    assert Embedder("small", dim=None).dim == 64, "None is nothing given"
    assert Embedder("small", truncate="warn").settings.truncate == "warn"
    assert Embedder("small", normalize=True).settings.normalize is True
    assert Embedder("small", dim=32).settings.truncate == "error"


def test_another_runtime_contradicts(use, servers):
    use(
        f"models:\n  far: {{provider: tei, base_url: '{URL}', model_id: {BGE}}}\n"
        f"  near: {{provider: native, model_id: {BGE}}}\n"
    )
    far = Tei(base_url=URL)
    for backend in (None, "tei", far):
        assert Embedder("far", backend=backend).settings.backend == far
    for backend in ("engine", "ollama", Tei(base_url="http://127.0.0.1:1"), OpenAI(base_url=URL)):
        with pytest.raises(ArgumentError, match=r"backend=.* contradicts 'far', configured at .*:2:3, which says"):
            Embedder("far", backend=backend)
    assert Embedder("near", backend="sentence-transformers").settings.backend == "sentence-transformers"
    with pytest.raises(ArgumentError, match="which runs in this process; leave one of them out"):
        Embedder("near", backend=far)


def test_recorded_ids_go_first_and_aliases_last(use):
    use(f"models: {{hash: {{provider: native, model_id: {QWEN}, dim: 32}}, all-MiniLM-L6-v2: {{provider: hash}}}}")
    assert Embedder("hash").spec.id == QWEN
    assert Embedder("all-MiniLM-L6-v2").spec.id == "embrief/hash"
    assert Embedder("embrief/hash").spec.id == "embrief/hash"
    assert Embedder("Embrief/HASH").spec.id == "embrief/hash"
    use_config(None)
    assert Embedder("hash").spec.id == "embrief/hash"


def test_a_facade_stays_what_it_is(use, servers):
    """Copies and pickles look no name up again, whatever the configuration says by then."""
    use(
        f"models:\n  hash: {{provider: hash, dim: 64}}\n  far: {{provider: tei, base_url: '{URL}', model_id: {BGE}}}\n"
        f"  plain: {{provider: hash, max_tokens: 7}}\nruns: {{embrief/hash: plain}}\n"
    )
    made = [Embedder("hash"), Embedder("far"), Embedder("hash").with_dim(32), Embedder("embrief/hash", dim=8)]
    written = [pickle.dumps(embedder) for embedder in made]
    use("models: {h2: {provider: hash, dim: 16}, far: {provider: hash}}\nruns: {embrief/hash: h2}\n")
    for embedder, data in zip(made, written, strict=True):
        for twin in (pickle.loads(data), copy.copy(embedder), copy.deepcopy(embedder)):
            assert twin.settings == embedder.settings
    assert made[0].settings.model == "embrief/hash"


def test_where_recorded_models_run(use, servers):
    use(
        f"models:\n  far: {{provider: tei, base_url: '{URL}', model_id: {BGE}, dim: 1024, max_tokens: 64, "
        f"instruction: x, truncate: silent}}\n"
        f"  here: {{provider: engine, model_id: {QWEN}, device: cpu, dtype: float32, dim: 64}}\n"
        f"  judge: {{provider: tei, base_url: '{URL}', model_id: {BGE_JUDGE}}}\n"
        f"  wrong: {{provider: hash}}\nruns:\n  {BGE}: far\n  {QWEN}: here\n  {BGE_JUDGE}: judge\n"
        "  google/embeddinggemma-300m: wrong\n"
    )
    embedder = Embedder(BGE)
    assert embedder.settings.backend == Tei(base_url=URL)
    assert Embedder(BGE.lower()).settings.backend == Tei(base_url=URL)
    # What moves a vector is the record's.
    assert embedder.settings.max_tokens is None
    assert embedder.settings.truncate == "warn"
    assert embedder.settings.instruction is None
    assert Embedder(QWEN).settings.backend == "engine"
    assert Embedder(QWEN).settings.dtype == "float32"
    assert Embedder(QWEN).dim == 1024
    assert Reranker(BGE_JUDGE).settings.backend == Tei(base_url=URL)
    # The name of a runtime, as a wrapper writes it down, is that one; another one of the call's own wins.
    assert Embedder(BGE, backend="tei").settings.backend == Tei(base_url=URL)
    assert Embedder(BGE, backend="sentence-transformers").settings.backend == "sentence-transformers"
    assert Embedder(QWEN, backend=Tei(base_url=URL)).settings.dtype == "auto"
    with pytest.raises(
        ConfigError, match=r"runs: says that google/embeddinggemma-300m runs as 'wrong', and that is emb"
    ):
        Embedder("google/embeddinggemma-300m")


@pytest.mark.parametrize(
    ("name", "model", "backend", "revision"),
    [
        (f"hf:{QWEN}", QWEN, None, None),
        (f"HF:{QWEN}@{SHA}", QWEN, None, SHA),
        ("local:hash", "embrief/hash", None, None),
        (f"native:{QWEN}", QWEN, None, None),
        (f"ollama:{BGE}", BGE, Ollama(model="bge-m3"), None),
        ("ollama:bge-m3", BGE, Ollama(model="bge-m3"), None),
        ("ollama:bge-m3:latest", BGE, Ollama(model="bge-m3:latest"), None),
        ("ollama+http://gpu:11434#bge-m3", BGE, Ollama(base_url="http://gpu:11434", model="bge-m3"), None),
        (f"ollama+http://gpu:11434#{BGE}", BGE, Ollama(base_url="http://gpu:11434", model="bge-m3"), None),
        (f"tei:{URL}#{BGE}", BGE, Tei(base_url=URL, model=BGE), None),
        (f"tei+{URL}#{BGE}", BGE, Tei(base_url=URL, model=BGE), None),
        (f"openai:{URL}/v1#{BGE}", BGE, OpenAI(base_url=f"{URL}/v1", model=BGE), None),
        (f"openai+https://h/v1#{BGE}", BGE, OpenAI(base_url="https://h/v1", model=BGE), None),
    ],
)
def test_references(records, name, model, backend, revision):
    embedder = Embedder(name, dim=None)
    assert embedder.settings.model == model
    assert embedder.settings.backend == backend
    assert embedder.settings.revision == revision


def test_a_reference_to_a_folder(qwen3_folder, monkeypatch):
    assert Embedder(f"local:{qwen3_folder}").settings.model == str(qwen3_folder)
    monkeypatch.chdir(qwen3_folder.parent)
    for name in (f"local:{qwen3_folder.name}", f"native:./{qwen3_folder.name}"):
        assert Embedder(name).settings.model == str(qwen3_folder)
    with pytest.raises(UnknownModelError, match=r"there is no model folder '\./gone', which local: means"):
        Embedder("local:./gone")
    (folder := qwen3_folder.parent / "owner").mkdir(exist_ok=True)
    (folder / "name").mkdir(exist_ok=True)
    with pytest.raises(ArgumentError, match="means the hub, and the working directory has a folder 'owner/name'"):
        Embedder("hf:owner/name")


def test_rerankers_on_servers(servers):
    assert Reranker(f"tei:{URL}#{BGE_JUDGE}").settings.backend == Tei(base_url=URL, model=BGE_JUDGE)
    assert Reranker(f"openai:{URL}#{JUDGE}").settings.backend == RerankHttp(base_url=URL, model=JUDGE)
    with pytest.raises(ArgumentError, match="OpenAI has no rerankers"):
        Reranker("openai:rerank-1")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("hf:name", "is no reference; write hf:owner/name"),
        ("hf:owner/name@", "is no reference; write hf:owner/name"),
        ("hf:", "is no reference"),
        ("tei:", "is no reference; write tei:http://host:port"),
        ("tei:host:80", "is no reference; write tei:http://host:port"),
        ("tei:ftp://host", "is no reference"),
        ("ollama:", "names no model; write it behind ollama:"),
        ("openai: ", "names no model"),
        ("local:", "names no folder"),
        ("local+http://h", "is no reference: local: is followed by a folder"),
        ("ollama:http://h:1#x", r"write Ollama's address as ollama\+http"),
        (f"tei:http://me:secret@h#{BGE}", "password"),
        (f"tei:http://h/?x#{BGE}", "has a query"),
        ("ollama:nobodys:7b", r"calls 'nobodys:7b', .*Embedder\(\"<.*>\", backend=Ollama\(model='nobodys:7b'\)\)"),
        ("tei:http://h:1#/data", r"calls '/data'.*backend=Tei\(base_url='http://h:1', model='/data'\)"),
        ("ollama:qwen2.5-embed", "is not an embedding or reranking model"),
    ],
)  # fmt: skip
def test_references_that_cannot_be(servers, name, says):
    with pytest.raises((ArgumentError, UnknownModelError), match=says) as caught:
        Embedder(name)
    assert "secret" not in str(caught.value)


def test_a_reference_and_what_contradicts_it(servers):
    name = f"tei:{URL}#{BGE}"
    assert Embedder(name, backend="tei").settings == Embedder(name).settings
    for backend in ("ollama", "engine", Ollama()):
        with pytest.raises(ArgumentError, match="contradicts the reference 'tei:"):
            Embedder(name, backend=backend)
    with pytest.raises(ArgumentError, match="contradicts the reference 'local:hash', which runs in this process"):
        Embedder("local:hash", backend=Ollama())
    assert Embedder(f"hf:{QWEN}@{SHA}", revision=SHA).settings.revision == SHA
    with pytest.raises(ArgumentError, match="revision='main' is not the one of the reference"):
        Embedder(f"hf:{QWEN}@{SHA}", revision="main")


def test_a_server_is_asked_once_which_model_it_has(servers, loopback):
    tei = loopback({"/info": {"model_id": BGE}})
    embedder = Embedder(f"tei:{tei}")
    assert (embedder.settings.model, embedder.settings.backend) == (BGE, Tei(base_url=tei, model=BGE))
    copy.deepcopy(embedder)
    pickle.loads(pickle.dumps(embedder))
    assert loopback.asked == [("/info", None)]
    one = loopback({"/v1/models": {"data": [{"id": BGE}]}})
    assert Embedder(f"openai:{one}/v1").settings.backend == OpenAI(base_url=f"{one}/v1", model=BGE)
    several = loopback({"/v1/models": {"data": [{"id": "a"}, {"id": "b"}]}, "/api/tags": {"models": [{"name": "c:1"}]}})
    with pytest.raises(ArgumentError, match=r"does not serve exactly one model \(it has 'a', 'b'\)"):
        Embedder(f"openai:{several}/v1")
    with pytest.raises(ArgumentError, match=r"serves any model that it has .it has 'c:1'.*name it, with '#'"):
        Embedder(f"ollama+{several}")


def test_a_server_that_is_asked_is_not_trusted(servers, loopback, monkeypatch):
    other = loopback({"/info": {"model_id": BGE}})
    seen = loopback.asked
    with pytest.raises(ArgumentError, match="answers HTTP 302"):
        Embedder(f"tei:{loopback({'/info': (302, f'{other}/info')})}")
    assert seen == []
    monkeypatch.setenv("http_proxy", other)
    for answer, says in (
        (b"<html>", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        ([], "does not say"),
        ({"model_id": 7}, "does not say"),
    ):
        with pytest.raises(ArgumentError, match=says):
            Embedder(f"tei:{loopback({'/info': answer})}")
    for status in (401, 403):
        with pytest.raises(UnauthorizedError, match="refuses the key"):
            Embedder(f"tei:{loopback({'/info': status})}")
    assert seen == []
    with pytest.raises(UnavailableError, match="does not answer"):
        Embedder("tei:http://127.0.0.1:9")
    with pytest.raises(UnknownModelError, match="a server calls '/data'"):
        Embedder(f"tei:{loopback({'/info': {'model_id': '/data'}})}")


def test_a_configured_server_is_asked_too(read, servers, loopback):
    url = loopback({"/info": {"model_id": BGE}})
    config = read(f"models: {{m: {{provider: tei, base_url: '{url}'}}}}")
    assert loopback.asked == []
    assert Registry(config).get("m").settings.model == BGE


def test_a_model_that_nothing_is_recorded_of(use, servers):
    config = use(
        "models:\n  my-service: {provider: local, base_url: 'http://127.0.0.1:8003', dim: 12, max_tokens: 99, "
        "model_id: org/x, truncate: error}\n  bare: {provider: vllm, dim: 7, revision: v3}\n"
    )
    embedder = Embedder("my-service")
    assert embedder.settings.backend == HttpSimple(base_url="http://127.0.0.1:8003", model="org/x")
    assert (embedder.dim, embedder.max_tokens, embedder.spec.id) == (12, 99, "my-service")
    assert (embedder.space.model, embedder.space.weights, embedder.space.document_prompt) == (
        "my-service",
        "declared",
        "",
    )
    assert embedder.render("q", role="query") == "q"
    bare = Embedder("bare")
    assert (bare.space.weights, bare.spec.id) == ("v3", "bare")
    assert bare.max_tokens == 1_000_000
    with pytest.raises(ArgumentError, match="dim=6 does not fit bare: it gives only 7"):
        Embedder("bare", dim=6)
    with pytest.raises(ArgumentError, match="instruction"):
        Embedder("bare", instruction="x").embed_query("q")
    # It travels with its facts, and what a store could name is not it.
    use_config(None)
    assert pickle.loads(pickle.dumps(embedder)).space == embedder.space
    with pytest.raises(UnknownModelError):
        Embedder("my-service")
    assert Registry(config).get("my-service").space == embedder.space


def test_a_declared_model_answers(use, servers, loopback):
    use(f"models: {{mine: {{provider: local, base_url: '{loopback({'/encode': 12})}', dim: 12}}}}")
    assert Embedder("mine").embed_documents(["a", "b"]).shape == (2, 12)


def test_the_default_model(use, monkeypatch, qwen3_folder):
    assert Embedder().settings.model == QWEN
    assert Reranker().settings.model == JUDGE
    use("default_model: small\nmodels: {small: {provider: hash, dim: 64}}\nreranker: embrief/tiny-reranker\n")
    assert Embedder().dim == 64
    assert Embedder(dim=8).dim == 8
    assert Reranker().spec.id == "embrief/tiny-reranker"
    monkeypatch.setenv("EMBRIEF_DEFAULT_EMBEDDING_MODEL", "local:hash")
    assert Embedder().dim == 1024
    monkeypatch.setenv("EMBRIEF_MODEL_PATH", str(qwen3_folder))
    with pytest.raises(
        ArgumentError, match=r"EMBRIEF_DEFAULT_EMBEDDING_MODEL='local:hash' and EMBRIEF_MODEL_PATH=.* both"
    ):
        Embedder()
    monkeypatch.delenv("EMBRIEF_DEFAULT_EMBEDDING_MODEL")
    assert Embedder().settings.model == str(qwen3_folder)
    monkeypatch.setenv("EMBRIEF_MODEL_PATH", "/no/such/folder")
    with pytest.raises(UnknownModelError, match="there is no model folder '/no/such/folder'"):
        Embedder()
    monkeypatch.setenv("EMBRIEF_MODEL_PATH", "")
    assert Embedder().dim == 64
    monkeypatch.setenv("EMBRIEF_RERANKER_MODEL", JUDGE)
    assert Reranker().settings.model == JUDGE
    monkeypatch.setenv("EMBRIEF_RERANKER_MODEL_PATH", "/x")
    with pytest.raises(ArgumentError, match="EMBRIEF_RERANKER_MODEL_PATH='/x' both"):
        Reranker()
    monkeypatch.delenv("EMBRIEF_RERANKER_MODEL")
    with pytest.raises(UnknownModelError, match="there is no model folder '/x'"):
        Reranker()


def test_the_device_of_the_environment(use, servers, monkeypatch):
    monkeypatch.setenv("EMBRIEF_DEVICE", "cuda:1")
    use(
        f"models:\n  a: {{provider: native, model_id: {QWEN}, device: cpu}}\n"
        f"  b: {{provider: tei, base_url: '{URL}', model_id: {QWEN}}}\n"
    )
    assert Embedder(QWEN).settings.device == "cuda:1"
    assert Embedder("a").settings.device == "cuda:1", "the environment wins over the file"
    assert Embedder(QWEN, device="auto").settings.device == "auto", "and the call over both"
    assert Embedder("b").settings.device == "auto"
    assert Embedder("hash").settings.device == "auto", "what has no device is left alone"
    monkeypatch.setenv("EMBRIEF_DEVICE", "gpu0")
    with pytest.raises(ArgumentError, match="device='gpu0' is not known"):
        Embedder(QWEN)


def test_servers_only(use, servers, monkeypatch):
    monkeypatch.setenv("EMBRIEF_NATIVE", "0")
    use(
        f"models:\n  far: {{provider: tei, base_url: '{URL}', model_id: {BGE}}}\n"
        f"  near: {{provider: native, model_id: {BGE}}}\n"
    )
    assert Embedder("far").settings.backend == Tei(base_url=URL)
    assert Embedder(BGE, backend=Ollama()).settings.backend == Ollama()
    with pytest.raises(
        ArgumentError, match=f"EMBRIEF_NATIVE=0 lets .* none is named for {BGE}; set EMBRIEF_SERVER_URL"
    ):
        Embedder(BGE)
    monkeypatch.setenv("EMBRIEF_SERVER_URL", f"ollama+{URL}")
    assert Embedder(BGE).settings.backend == Ollama(base_url=URL)
    assert Embedder().settings.backend == Ollama(base_url=URL)
    monkeypatch.setenv("EMBRIEF_SERVER_URL", f"openai+{URL}/v1")
    assert Embedder(BGE).settings.backend == OpenAI(base_url=f"{URL}/v1")
    assert Reranker().settings.backend == RerankHttp(base_url=f"{URL}/v1")
    for name, backend in (("near", None), ("local:hash", None), (BGE, "engine"), ("embrief/hash", "hash")):
        with pytest.raises(
            ArgumentError, match=r"EMBRIEF_NATIVE=0 lets models run on servers only, and .* in this process"
        ):
            Embedder(name, backend=backend)
    monkeypatch.setenv("EMBRIEF_SERVER_URL", "gpu:80")
    with pytest.raises(ArgumentError, match="EMBRIEF_SERVER_URL is no address"):
        Embedder(BGE)


def test_a_server_without_a_word_is_asked_once_what_it_is(servers, monkeypatch, loopback):
    monkeypatch.setenv("EMBRIEF_NATIVE", "0")
    for answers, path, kind in (
        ({"/info": {"model_id": "x"}}, "", Tei),
        ({"/api/tags": {"models": []}}, "", Ollama),
        ({"/v1/models": {"data": []}}, "/v1", OpenAI),
    ):
        url = loopback(answers) + path
        monkeypatch.setenv("EMBRIEF_SERVER_URL", url)
        assert Embedder(BGE).settings.backend == kind(base_url=url)
        asked = len(loopback.asked)
        assert Embedder(QWEN).settings.backend == kind(base_url=url)
        assert len(loopback.asked) == asked
    monkeypatch.setenv("EMBRIEF_SERVER_URL", loopback({}))
    with pytest.raises(ArgumentError, match=r"is neither TEI nor Ollama nor .*tei\+http"):
        Embedder(BGE)


def test_this_process_only(use, servers, monkeypatch):
    monkeypatch.setenv("EMBRIEF_NATIVE", "1")
    monkeypatch.setenv("EMBRIEF_SERVER_URL", f"tei+{URL}")
    use(
        f"models: {{far: {{provider: tei, base_url: '{URL}', model_id: {BGE}}}}}\nruns: {{{QWEN}: far}}".replace(
            QWEN, BGE
        )
    )
    assert Embedder(QWEN).settings.backend is None
    assert Embedder("hash").dim == 1024
    there = Tei(base_url=URL)
    for name, backend in (("far", None), (BGE, None), (QWEN, there), (QWEN, "tei"), (f"tei:{URL}#{QWEN}", None)):
        with pytest.raises(ArgumentError, match="EMBRIEF_NATIVE=1 lets models run in this process only"):
            Embedder(name, backend=backend)
    monkeypatch.delenv("EMBRIEF_NATIVE")
    made = pickle.dumps(Embedder("far"))
    monkeypatch.setenv("EMBRIEF_NATIVE", "1")
    with pytest.raises(ArgumentError, match="EMBRIEF_NATIVE=1"):
        pickle.loads(made)


class Away(Runtime):
    """A plugin's runtime that sends texts to another machine, or would."""

    name = "far"

    def __init__(self, options):
        self.Options = options

    def offer(self, spec, ask):
        return Offer(device="server", dtype="auto", leaves_machine=True)

    def load(self, request):
        raise AssertionError("nothing is loaded here")


def test_a_plugins_server_counts_as_one(monkeypatch, use):
    """It says itself that texts leave the machine; and a provider is called as its runtime is."""

    @dataclass(frozen=True, kw_only=True)
    class Far(RuntimeOptions):
        port: int = 1

    plugins().catalog.add_backend(Away(Far))
    try:
        use(f"models: {{m: {{provider: far, model_id: {QWEN}}}}}")
        for native in ("", "0"):
            monkeypatch.setenv("EMBRIEF_NATIVE", native)
            assert Embedder(QWEN, backend=Far(port=2)).settings.backend == Far(port=2)
            assert Embedder(QWEN, backend="far").settings.backend == "far"
            assert Embedder("m").settings.backend == "far"
        monkeypatch.setenv("EMBRIEF_NATIVE", "1")
        for name, backend in ((QWEN, Far()), (QWEN, "far"), ("m", None)):
            with pytest.raises(ArgumentError, match="EMBRIEF_NATIVE=1"):
                Embedder(name, backend=backend)
    finally:
        plugins().catalog.remove("far", [])


def test_options_of_the_runtime_that_an_entry_names_agree_with_it(use):
    """What an entry cannot say, the call says: the entry's other keywords stay."""
    use(
        "models:\n  mine: {provider: engine, model_id: google/embeddinggemma-2, dtype: float32, dim: 256}\n"
        f"  far: {{provider: tei, base_url: '{URL}', model_id: {BGE}}}\n"
    )
    options = EngineOptions(picture_prompt="none")
    embedder = Embedder("mine", backend=options)
    assert embedder.settings.backend == options
    assert (embedder.settings.dtype, embedder.dim) == ("float32", 256)
    assert embedder.space.picture_prompt == "none"
    assert Embedder("mine").modalities == ("text",)
    with pytest.raises(ArgumentError, match="contradicts 'far'"):
        Embedder("far", backend=options)


def test_where_a_recorded_model_runs_does_not_say_where_its_prompts_stand(use):
    gemma = "google/embeddinggemma-2"
    plain = Embedder(gemma)
    config = use(
        f"models: {{mine: {{model_id: {gemma}, dtype: float32, picture_prompt: none}}}}\nruns: {{{gemma}: mine}}\n"
    )
    assert "mine: picture_prompt count where 'mine' is named" in config.notes[0]
    found = Embedder(gemma)
    assert (found.settings.dtype, found.modalities, found.space) == ("float32", ("text",), plain.space)
    assert Embedder("mine").modalities == ("text", "image")
    assert Embedder("mine", backend="engine").space == Embedder("mine").space
    with pytest.raises(ArgumentError, match="contradicts 'mine'"):
        Embedder("mine", backend=EngineOptions(picture_prompt="behind"))


def test_unset_a_server_is_used_only_where_it_is_named(servers, monkeypatch, use):
    monkeypatch.setenv("EMBRIEF_SERVER_URL", f"tei+{URL}")
    assert Embedder(QWEN).settings.backend is None
    assert Embedder().settings.backend is None
    assert Embedder(QWEN, backend="tei").settings.backend == Tei(base_url=URL)
    use(
        f"models:\n  far: {{provider: tei, model_id: {BGE}}}\n"
        f"  other: {{provider: tei, base_url: 'http://127.0.0.1:1', model_id: {BGE}}}\n"
        f"  simple: {{provider: http-simple, model_id: {BGE}}}\n  o: {{provider: ollama, model_id: {BGE}}}\n"
    )
    assert Embedder("far").settings.backend == Tei(base_url=URL)
    assert Embedder("other").settings.backend == Tei(base_url="http://127.0.0.1:1"), (
        "the entry's own address is its own"
    )
    assert Embedder("o").settings.backend == Ollama()
    with pytest.raises(ConfigError, match="provider: http-simple needs base_url:"):
        Embedder("simple")
    monkeypatch.setenv("EMBRIEF_SERVER_URL", URL)
    assert Embedder("simple").settings.backend == HttpSimple(base_url=URL)
    monkeypatch.setenv("EMBRIEF_SERVER_URL", f"ollama+{URL}")
    assert Embedder("o").settings.backend == Ollama(base_url=URL)
    monkeypatch.setenv("EMBRIEF_NATIVE", "perhaps")
    with pytest.raises(ArgumentError, match="EMBRIEF_NATIVE='perhaps' is not known; set it to 0 or 1"):
        Embedder("o")


def test_a_broken_file_is_told_where_it_may_matter(write, monkeypatch):
    monkeypatch.setenv("EMBRIEF_CONFIG", str(write("modles: {}\n")))
    for name in ("hash", QWEN, None):
        with pytest.raises(ConfigError, match="no setting 'modles'"):
            Embedder(name)
    monkeypatch.setenv("EMBRIEF_CONFIG", str(write("models: {hash: {provider: hash, dim: 8}}\n")))
    assert Embedder("hash").dim == 8, "read as soon as it can be"
    assert load_config(write("")).models == {}


def test_the_environments_server_is_that_of_configured_ones_without_an_address(servers, monkeypatch, use):
    words = ("vllm", "llama-server", "infinity", "lmstudio", "openai-compatible", "ollama", "tei")
    use(
        "models:\n"
        + "".join(f"  {word}: {{provider: {word}, model_id: {BGE}}}\n" for word in words)
        + f"  judge: {{provider: vllm, model_id: {JUDGE}}}\n  openai: {{provider: openai, model_id: "
        f"text-embedding-3-small}}\n  jina: {{provider: jina, model_id: {BGE}, served_as: x}}\n"
    )
    like_openai, other = words[:5], "http://10.0.0.5:1/v1"
    usual = {word: Embedder(word).settings.backend for word in (*like_openai[:4], "ollama")}
    monkeypatch.setenv("EMBRIEF_SERVER_URL", f"openai+{other}")
    for word in like_openai:
        assert Embedder(word).settings.backend.base_url == other, word
    assert Reranker("judge").settings.backend.base_url == other
    assert Embedder("ollama").settings.backend == usual["ollama"]
    assert Embedder("openai").settings.backend.base_url is None, "what OpenAI alone has is OpenAI's"
    assert Embedder("jina").settings.backend.base_url == "https://api.jina.ai/v1"
    with pytest.raises(
        ConfigError,
        match=r"provider: tei needs base_url:.*; EMBRIEF_SERVER_URL names a server of another kind, openai\+http",
    ):
        Embedder("tei")
    monkeypatch.setenv("EMBRIEF_SERVER_URL", f"tei+{URL}")
    assert {word: Embedder(word).settings.backend for word in usual} == usual
    monkeypatch.setenv("EMBRIEF_SERVER_URL", URL)
    for word in words:
        assert Embedder(word).settings.backend.base_url == URL, word


def test_a_reference_to_ollama_goes_where_the_environment_says(servers, monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:7")
    monkeypatch.setenv("EMBRIEF_SERVER_URL", "ollama+http://10.0.0.5:11434")
    assert Embedder("ollama:bge-m3").settings.backend.base_url == "http://10.0.0.5:11434"
    assert Embedder("ollama+http://10.0.0.6:1#bge-m3").settings.backend.base_url == "http://10.0.0.6:1"
    monkeypatch.setenv("EMBRIEF_SERVER_URL", "tei+http://10.0.0.5:11434")
    assert Embedder("ollama:bge-m3").settings.backend.base_url is None


def test_where_recorded_models_run_holds_for_every_name_of_theirs(use, servers, monkeypatch):
    use(
        f"models:\n  far: {{provider: tei, base_url: '{URL}', model_id: {QWEN}}}\n"
        f"  all-MiniLM-L6-v2: {{provider: hash}}\nruns:\n  {QWEN}: far\n"
    )
    far, commit = Tei(base_url=URL), plugins().catalog.models[QWEN].revision
    for name in (QWEN, "qwen3-embedding-0.6b", f"hf:{QWEN}", f"hf:{QWEN.lower()}", f"hf:{QWEN}@{commit}"):
        assert Embedder(name).settings.backend == far, name
        assert Embedder(name).spec.id == QWEN
    assert Embedder(f"local:{QWEN}").settings.backend is None
    other = Embedder(f"hf:{QWEN}@{SHA}").settings
    assert (other.backend, other.revision) == (None, SHA), "another commit is another model"
    assert Embedder("all-MiniLM-L6-v2").spec.id == "embrief/hash"
