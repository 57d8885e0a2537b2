"""The settings of a model: other words for them, what contradicts, what belongs to which provider, and secrets."""

from __future__ import annotations

import pytest

from embrief import ArgumentError, ConfigError, Embedder, Registry, Reranker
from embrief.config.aliases import FILE_ALIASES, MODEL_ALIASES
from embrief.config.providers import PROVIDER_ALIASES, PROVIDERS
from embrief.config.schema import FILE_SETTINGS, MODEL_SETTINGS
from embrief.errors import WrongKindError
from embrief.servers import HfInference, HttpSimple, Ollama, OpenAI, RerankHttp, Tei

KEY = "sk-verysecret0123456789"
URL, BGE, BGE_JUDGE = "http://127.0.0.1:8080", "BAAI/bge-m3", "BAAI/bge-reranker-v2-m3"


def problems(read, text):
    with pytest.raises(ConfigError) as caught:
        read(text)
    return [problem.rpartition("embrief.yaml:")[2] for problem in caught.value.problems]


def settings(read, model):
    return read(f"models: {{m: {{{model}}}}}").models["m"].settings


def test_the_tables_agree():
    assert {alias.setting for alias in MODEL_ALIASES.values()} <= set(MODEL_SETTINGS)
    assert {alias.setting for alias in FILE_ALIASES.values()} <= set(FILE_SETTINGS)
    assert not set(MODEL_ALIASES) & set(MODEL_SETTINGS)
    assert not set(FILE_ALIASES) & set(FILE_SETTINGS)
    assert set(PROVIDER_ALIASES.values()) <= set(PROVIDERS)
    assert not set(PROVIDER_ALIASES) & set(PROVIDERS)


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ("provider_type: hash, dimensions: 8", "dim", 8),
        ("provider: tei, url: 'http://h:1', batch_size: 100", "batch_rows", 100),
        ("provider: engine, gpu_enabled: true", "device", "auto"),
        ("provider: engine, gpu_enabled: false", "device", "cpu"),
        ("provider: engine, quantization: int8", "dtype", "int8"),
        ("provider: hash, cache_enabled: false", "cache", False),
        ("provider: hash, cache: sqlite", "cache", "sqlite"),
        ("provider: tei, url: 'http://h:1', max_retries: 0", "tries", 1),
        ("provider: tei, url: 'http://h:1', max_retries: 3", "tries", 4),
        ("Provider: Sentence_Transformers", "provider", "sentence-transformers"),
        ("provider: llama.cpp", "provider", "llama-server"),
        ("provider: tei, url: 'http://h:1', api-key-env-var: MY_API_KEY", "api_key_env", "MY_API_KEY"),
        ("provider: local, base_url: 'http://h:1', text_endpoint: {path: /txt/embed}", "text_endpoint", "/txt/embed"),
        ("provider: local, base_url: 'http://h:1', text_endpoint: /encode", "text_endpoint", "/encode"),
    ],
)
def test_other_words(read, given, name, value):
    assert settings(read, given)[name] == value


def test_two_words_for_one_setting_must_agree(read):
    assert settings(read, "provider: hash, dim: 8, dimensions: 8")["dim"] == 8
    assert settings(read, "provider: engine, device: cpu, use_gpu: false")["device"] == "cpu"
    assert settings(read, "provider: hf, backend: huggingface")["provider"] == "huggingface"
    found = problems(read, "models:\n  m: {provider: hash, dim: 8, dimensions: 16}\n")
    assert found == [
        "2:31: models.m has dim and dimensions, which are one setting (dim), with different values; leave one"
    ]
    assert "use_gpu" in problems(read, "models:\n  m: {provider: engine, device: cuda, use_gpu: true}\n")[0]
    assert "one setting (reranker)" in problems(read, "reranker: hash\ndefault_reranker: tiny\n")[0]


@pytest.mark.parametrize(
    "word", ["api_key", "apikey", "token", "hf_token", "password", "Authorization", "openai_api_key"]
)
@pytest.mark.parametrize("value", [KEY, f"'{KEY}'", f"[{KEY}]", f"{{Bearer: {KEY}}}"])
def test_a_key_in_the_file_is_refused_and_never_shown(read, word, value):
    found = problems(read, f"models:\n  m:\n    provider: openai\n    {word}: {value}\n")
    assert found[0].startswith("4:5: models.m.")
    assert "api_key_env: OPENAI_API_KEY" in found[0]
    assert KEY not in str(found)


def test_a_key_where_its_variables_name_belongs_is_not_shown(read):
    found = problems(read, f"models: {{m: {{provider: openai, api_key_env: {KEY}}}}}")
    assert "is the name of a variable that ends in _API_KEY" in found[0]
    assert KEY not in str(found)
    with pytest.raises(ConfigError) as caught:
        Registry().register("m", provider="openai", api_key=KEY)
    assert KEY not in str(caught.value)


def test_code_cannot_be_allowed_there(read):
    for value in ("true", "false"):
        found = problems(read, f"models:\n  m: {{provider: native, model_id: a/b, trust_remote_code: {value}}}\n")
        assert found[0].startswith("2:40: models.m.trust_remote_code cannot be set in a configuration: ")
    assert "trust_remote_code cannot be set" in problems(read, "trust_remote_code: true\n")[0]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("provider: hash, keep_alive: 5m", "is for the provider ollama, and does nothing for the provider hash"),
        ("provider: openai, device: cuda", "is for models in this process, and does nothing for the provider openai"),
        ("provider: engine, base_url: 'http://h:1'", "base_url is for models on servers"),
        ("provider: tei, url: 'http://h:1', field: x", "field is for the provider http-simple"),
        ("provider: native, tries: 3", "tries is for models on servers"),
        ("provider: native, batch_rows: 3", "batch_rows is for models on servers"),
        ("base_url: 'http://h:1'", "has a base_url and no provider"),
        ("provider: hash, truncate: maybe", "truncate is one of warn, error, silent, not 'maybe'"),
        ("provider: hash, cache: sometimes", "cache is true, false, memory or sqlite"),
        ("provider: hash, cache: 7", "cache is true or false, not '7'"),
        ("provider: hash, dim: 0", "dim is a whole number of at least 1, not '0'"),
        ("provider: hash, dim: 1.5", "dim is a whole number"),
        ("provider: hash, dim: true", "dim is a whole number"),
        ("provider: hash, model_id: ''", "model_id is empty"),
        ("provider: local, base_url: 'http://h:1', text_endpoint: {route: /x}", "is a path, or {path: /encode}"),
        ("provider: hash, pooling: mean", "pooling cannot be set in a configuration"),
        ("provider: nobody, dim: 8", "'nobody' is not known; there are cohere, engine"),
    ],
)  # fmt: skip
def test_what_is_refused(read, given, says):
    assert says in problems(read, f"models: {{m: {{{given}}}}}")[0]


def test_what_habit_writes_is_told_and_no_error(read):
    config = read(
        "models:\n  a: {provider: native, model_id: hash, batch_size: 32, timeout: 30s}\n"
        "  b: {provider: ollama, model_id: BAAI/bge-m3, gpu_enabled: true}\n"
    )
    assert [note.rpartition("embrief.yaml:")[2][:24] for note in config.notes] == [
        "2:3: a: batch_size count", "2:3: a: timeout has no e", "3:3: b: gpu_enabled has ",
    ]  # fmt: skip
    assert config.models["a"].settings == {"provider": "native", "model_id": "hash"}
    assert "device" not in config.models["b"].settings


@pytest.mark.parametrize("name", ["BAAI/bge-m3", "embrief/hash", "EMBRIEF/HASH"])
def test_a_recorded_id_cannot_be_configured(read, name):
    found = problems(read, f"models:\n  {name}: {{provider: hash}}\n")
    assert found[0].startswith(f"2:3: {name!r} is the id of a recorded model")
    with pytest.raises(ConfigError, match="is the id of a recorded model"):
        Registry().register(name, provider="hash")


@pytest.mark.parametrize("name", ["owner/name", "tei:x", "-x", "a b", "x" * 65, "", "../x", "~x", "a\\b", "\xe9"])
def test_nor_can_what_could_be_an_id_a_reference_or_a_path(read, name):
    text = name.replace("\\", "\\\\")
    assert "a model cannot be called" in problems(read, f'models:\n  "{text}": {{provider: hash}}\n')[0]


def test_rerankers(read):
    config = read("reranker: {provider: native, model_id: embrief/tiny-reranker, truncate: silent}\n")
    assert config.reranker == "reranker"
    assert Registry(config).reranker().spec.id == "embrief/tiny-reranker"
    assert Registry(config).reranker().settings.truncate == "silent"
    assert (
        "there is a model called reranker already"
        in problems(read, "models: {reranker: {provider: hash}}\nreranker: {provider: hash}\n")[0]
    )
    assert read("reranker: embrief/tiny-reranker").reranker == "embrief/tiny-reranker"
    assert read("reranker: tei:http://127.0.0.1:1").reranker == "tei:http://127.0.0.1:1"
    assert "did you mean small?" in problems(read, "models: {small: {provider: hash}}\nreranker: smal\n")[0]
    with pytest.raises(ConfigError, match="dim: is for embedding models"):
        Registry(read("reranker: {provider: native, model_id: embrief/tiny-reranker, dim: 8}")).reranker()


def test_runs_and_chains_name_what_there_is(read):
    models = "models: {a: {provider: hash}, b: {provider: hash}}\n"
    assert (
        "'BAAI/bge-m4' is not the id of a recorded model; did you mean 'BAAI/bge-m3'?"
        in problems(read, f"{models}runs: {{BAAI/bge-m4: a}}\n")[0]
    )
    assert "'c' is not known; there are a, b" in problems(read, f"{models}runs: {{BAAI/bge-m3: c}}\n")[0]
    assert "has 'a' twice" in problems(read, f"{models}fallback_chain: [a, b, a]\n")[0]
    assert read(f"{models}fallback: [a, b]\nallow_degraded: true\n").allow_degraded


def meant(read, kind, model):
    registry = Registry(read(f"models: {{m: {{{model}}}}}"))
    found = registry.get("m") if kind is Embedder else registry.reranker("m")
    return found.settings.model, found.settings.backend


QWEN = "model_id: Qwen/Qwen3-Embedding-0.6B"
JUDGE = "model_id: Qwen/Qwen3-Reranker-0.6B"


@pytest.mark.parametrize(
    ("model", "backend"),
    [
        (f"provider: vllm, {QWEN}", OpenAI(base_url="http://127.0.0.1:8000/v1")),
        (f"provider: llamacpp, {QWEN}", OpenAI(base_url="http://127.0.0.1:8080/v1")),
        (f"provider: infinity, {QWEN}", OpenAI(base_url="http://127.0.0.1:7997")),
        (f"provider: lmstudio, {QWEN}", OpenAI(base_url="http://127.0.0.1:1234/v1")),
        (f"provider: mistral, {QWEN}", OpenAI(base_url="https://api.mistral.ai/v1")),
        (f"provider: jina, {QWEN}", OpenAI(base_url="https://api.jina.ai/v1")),
        (f"provider: hf-inference, {QWEN}", HfInference()),
        (f"provider: ollama, {QWEN}, keep_alive: 5m", Ollama(keep_alive="5m")),
        (f"provider: ollama, {QWEN}, served_as: 'qwen3:0.6b'", Ollama(model="qwen3:0.6b")),
        (
            f"provider: tei, {QWEN}, base_url: 'https://gpu:8080', timeout: 5s, batch_size: 32, in_flight: 2, "
            "requests_per_minute: 60, tokens_per_minute: 1000, api_key_env: A_KEY, deadline: 1h, connect_timeout: 1s",
            Tei(base_url="https://gpu:8080", timeout=5.0, batch_rows=32, in_flight=2, requests_per_minute=60,
                tokens_per_minute=1000, api_key_env="A_KEY", deadline=3600.0, connect_timeout=1.0),
        ),
        (
            f"provider: local, {QWEN}, base_url: 'http://127.0.0.1:8003', text_endpoint: {{path: /txt/embed}}, "
            "field: input, answer_field: data, one_by_one: true",
            HttpSimple(base_url="http://127.0.0.1:8003", text_endpoint="/txt/embed", field="input", answer_field="data",
                       one_by_one=True),
        ),
    ],
)  # fmt: skip
def test_providers_of_embeddings(read, servers, model, backend):
    assert meant(read, Embedder, model) == ("Qwen/Qwen3-Embedding-0.6B", backend)


@pytest.mark.parametrize(
    ("model", "backend"),
    [
        (f"provider: vllm, {JUDGE}", RerankHttp(base_url="http://127.0.0.1:8000/v1")),
        (f"provider: cohere, {JUDGE}", RerankHttp(base_url="https://api.cohere.com/v2")),
        (
            f"provider: rerank-http, {JUDGE}, base_url: 'http://127.0.0.1:1', template: client, "
            "probe: 'off', scores: auto",
            RerankHttp(base_url="http://127.0.0.1:1", template="client", probe="off"),
        ),
    ],
)
def test_providers_of_rerankers(read, servers, model, backend):
    assert meant(read, Reranker, model) == ("Qwen/Qwen3-Reranker-0.6B", backend)


def test_tei_has_rerankers_too(read, servers):
    model = "provider: tei, model_id: BAAI/bge-reranker-v2-m3, base_url: 'http://127.0.0.1:1'"
    assert meant(read, Reranker, model) == ("BAAI/bge-reranker-v2-m3", Tei(base_url="http://127.0.0.1:1"))


def test_providers_in_this_process(read, tmp_path):
    assert meant(read, Embedder, "provider: local, dim: 8") == ("embrief/hash", None)
    assert meant(read, Embedder, "provider: hash") == ("embrief/hash", None)
    assert (
        meant(read, Embedder, "provider: local, model_id: all-MiniLM-L6-v2")[0]
        == "sentence-transformers/all-MiniLM-L6-v2"
    )
    assert meant(read, Embedder, "provider: engine, model_id: embrief/tiny-embedding") == (
        "embrief/tiny-embedding",
        "engine",
    )
    assert meant(read, Embedder, f"provider: st, {QWEN}".replace("st,", "sbert,"))[1] == "sentence-transformers"
    assert meant(read, Embedder, "model_id: 'local:hash'") == ("embrief/hash", None)
    found = Registry(read("models: {hash: {provider: native, dim: 8}}")).get("hash")
    assert (found.settings.model, found.dim) == ("embrief/hash", 8)


def test_folders_count_from_the_file(read, qwen3_folder, tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine").symlink_to(qwen3_folder)
    for model in ("models/mine", "./models/mine", "local:models/mine", f"{tmp_path}/models/mine"):
        found = meant(read, Embedder, f"provider: local, model_id: '{model}'")
        assert found == (str(tmp_path / "models" / "mine"), None)
    monkeypatch.chdir(tmp_path / "models")
    with pytest.raises(ConfigError, match="is a folder in the working directory, and paths here count from the file's"):
        meant(read, Embedder, "provider: local, model_id: mine")
    with pytest.raises(ConfigError, match=r"embrief\.yaml:1:10: m: there is no model folder './gone'"):
        meant(read, Embedder, "provider: local, model_id: ./gone")


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("provider: tei, model_id: BAAI/bge-m3", "provider: tei needs base_url:"),
        ("provider: http-simple, model_id: BAAI/bge-m3", "provider: http-simple needs base_url:"),
        ("provider: native", "does not say which model it is; add model_id:"),
        ("provider: ollama, model_id: nobodys", "nothing is recorded about 'nobodys'.* served_as: nobodys"),
        ("provider: openai, model_id: nobodys", "nothing is recorded about 'nobodys'.* add the line dim:"),
        ("provider: openai, model_id: qwen2.5-embed", "is not an embedding or reranking model"),
        (f"provider: vllm, {QWEN}, base_url: 'ftp://x'", "is no address of an HTTP server"),
        (f"provider: vllm, {QWEN}, base_url: 'http://me:{KEY}@h'", "password"),
        (f"provider: vllm, {QWEN}, base_url: 'http://far:1', api_key_env: A_KEY", "never sent over http"),
        ("provider: engine, model_id: 'tei:http://127.0.0.1:1#BAAI/bge-m3'", "name two places to run it"),
        ("provider: native, model_id: 'hf:a/b@main', revision: other", "revision: other is not the one in model_id"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_so_says_where_and_what_to_change(read, servers, model, says):
    with pytest.raises(ConfigError, match=says) as caught:
        meant(read, Embedder, model)
    assert "embrief.yaml:1:10: m: " in str(caught.value)
    assert KEY not in str(caught.value)


def test_the_other_kind(read, servers):
    with pytest.raises(WrongKindError, match=r"'m', configured at .*:1:10 is a reranker; use Reranker\('m'\)"):
        use_as(read, Embedder, f"provider: tei, {JUDGE}, base_url: 'http://127.0.0.1:1'")
    for model in ("provider: cohere, model_id: x", "provider: hash, kind: reranker", f"provider: native, {JUDGE}"):
        with pytest.raises(WrongKindError, match="is a reranker"):
            use_as(read, Embedder, model)
    with pytest.raises(WrongKindError, match="is an embedding model"):
        use_as(read, Reranker, "provider: mistral, model_id: x")


def use_as(read, kind, model):
    from embrief import use_config

    use_config(read(f"models: {{m: {{{model}}}}}"))
    return kind("m")


def test_errors_name_the_place(read):
    with pytest.raises(ArgumentError, match="dim=9 does not fit") as caught:
        Registry(read("models: {m: {model_id: BAAI/bge-m3, dim: 9}}")).get("m")
    assert "configured at" in str(caught.value.__notes__)


@pytest.mark.parametrize(
    ("model", "kind", "says"),
    [
        (f"{{provider: tei, base_url: '{URL}', model_id: {BGE_JUDGE}, cache: true}}", Reranker, "cache: is for embed"),
        (f"{{provider: openai, base_url: '{URL}', model_id: {BGE_JUDGE}, encoding: float}}", Reranker,
         "encoding: does nothing for a reranker of the provider openai; remove it"),
        (f"{{provider: vllm, model_id: {BGE_JUDGE}, final_token: append}}", Reranker, "final_token: does nothing for "),
        (f"{{provider: vllm, model_id: {BGE}, template: client}}", Embedder,
         "template: does nothing for an embedding model of the provider vllm; remove it"),
    ],
)  # fmt: skip
def test_what_is_for_the_other_kind_of_models_is_an_error(read, servers, model, kind, says):
    config = read(f"models:\n  m: {model}\n")
    with Registry(config) as registry, pytest.raises(ConfigError, match=rf"yaml:2:3: m: {says}"):
        (registry.get if kind is Embedder else registry.reranker)("m")


def test_how_long_nothing_is_kept(read):
    found = problems(read, "models:\n  m: {provider: hash, cache_ttl: 1h}\n")
    assert found == [
        "2:23: models.m.cache_ttl says how long vectors are kept, and nothing says that they are; add cache: true, or "
        "remove it"
    ]
    config = read("models:\n  m: {provider: hash, cache_enabled: false, ttl: 1h}\n")
    assert config.notes[0].endswith("yaml:2:3: m: ttl has no effect: no vectors are kept, by cache_enabled: false")


def test_what_runs_leaves_behind_is_told(read):
    config = read(
        f"models:\n  m: {{model_id: {BGE}, device: cpu, truncate: error, max_tokens: 9, dim: 1024}}\n"
        f"  n: {{model_id: {BGE_JUDGE}}}\nruns: {{{BGE}: m, {BGE_JUDGE}: n}}\n"
    )
    [note] = config.notes
    assert f"yaml:2:3: m: truncate, max_tokens, dim count where 'm' is named, and not where runs: has {BGE}" in note
