"""The persisted configuration: a storage format that is stable, closed, cheap to rebuild and never trusted."""

from __future__ import annotations

import builtins
import json
import socket
import struct
import warnings
from importlib.resources import files
from pathlib import Path

import pytest
from jsonschema import Draft7Validator

import chroma_embrief
from chroma_embrief import GemmaEmbeddingFunction, Qwen3EmbeddingFunction, Qwen3VLEmbeddingFunction, open_collection
from embrief import (
    ArgumentError,
    Embedder,
    EmbriefError,
    ModelMismatchError,
    SpaceMismatchError,
    WeightsUnavailableError,
)
from embrief.testing import FakeRuntime

COMMIT = "a" * 40
# What released versions have written. Never edit a line: collections on disk hold these bytes.
GOLDEN = {
    "qwen3": (
        lambda: Qwen3EmbeddingFunction(),
        '{"dim":1024,"instruction":null,"like":null,"max_tokens":null,"model":"Qwen/Qwen3-Embedding-0.6B",'
        '"normalize":true,"revision":"b22da495047858cce924d27d76261e96be6febc0","space":{"dim":1024,'
        '"document_prompt":"","id":"es1-b7e7524fbe6465938175a82451370dd9","label":"","lexical":false,'
        '"model":"Qwen/Qwen3-Embedding-0.6B","normalize":true,"pooling":"last",'
        '"weights":"b22da495047858cce924d27d76261e96be6febc0"},"task":null,"version":1}',
    ),
    "gemma": (
        lambda: GemmaEmbeddingFunction(dim=256, task="fact_checking", max_tokens=512, normalize=False),
        '{"dim":256,"instruction":null,"like":null,"max_tokens":512,"model":"google/embeddinggemma-300m",'
        '"normalize":false,"revision":"64614b0b8b64f0c6c1e52b07e4e9a4e8fe4d2da2","space":{"dim":256,'
        '"document_prompt":"title: none | text: ","id":"es1-bf965c68c8c66483e43e3dd3fe530f8e","label":"",'
        '"lexical":false,"model":"google/embeddinggemma-300m","normalize":false,"pooling":"mean",'
        '"weights":"64614b0b8b64f0c6c1e52b07e4e9a4e8fe4d2da2"},"task":"fact_checking","version":1}',
    ),
    "hash": (
        lambda: Qwen3EmbeddingFunction("HASH", dim=64, instruction=""),
        '{"dim":64,"instruction":"","like":null,"max_tokens":null,"model":"embrief/hash","normalize":true,'
        '"revision":"v2","space":{"dim":64,"document_prompt":"","id":"es1-79bdd898b49453a58cfeb0bc2c70fbfe",'
        '"label":"","lexical":true,"model":"embrief/hash","normalize":true,"pooling":"none","weights":"v2"},'
        '"task":null,"version":1}',
    ),
    "hub": (
        lambda: GemmaEmbeddingFunction(
            "someone/some-model", revision=COMMIT, instruction="Find", like="Qwen/Qwen3-Embedding-0.6B"
        ),
        '{"dim":null,"instruction":"Find","like":"Qwen/Qwen3-Embedding-0.6B","max_tokens":null,'
        '"model":"someone/some-model","normalize":true,"revision":"' + COMMIT + '","space":null,'
        '"task":null,"version":1}',
    ),
    "vl": (
        lambda: Qwen3VLEmbeddingFunction(),
        '{"dim":2048,"instruction":null,"like":null,"max_tokens":null,"model":"Qwen/Qwen3-VL-Embedding-2B","n'
        'ormalize":true,"revision":"9f2f7e710d6d81056aa5c0a4f04764fec6bb7bda","space":{"dim":2048,"document_p'
        'rompt":"<|im_start|>system\\nRepresent the user\'s input.<|im_end|>\\n<|im_start|>user\\n","document_tai'
        'l":"<|im_end|>\\n<|im_start|>assistant\\n","id":"es1-be06458d9d34ca660c9f51d6f91926be","label":"","lex'
        'ical":false,"max_pixels":1310720,"min_pixels":4096,"model":"Qwen/Qwen3-VL-Embedding-2B","normalize":'
        'true,"pooling":"last","weights":"9f2f7e710d6d81056aa5c0a4f04764fec6bb7bda"},"task":null,"version":1}',
    ),
    "vl of another size": (
        lambda: Qwen3VLEmbeddingFunction("Qwen/Qwen3-VL-Embedding-8B", dim=1024, max_pixels=1843200),
        '{"dim":1024,"instruction":null,"like":null,"max_pixels":1843200,"max_tokens":null,"model":"Qwen/Qwen'
        '3-VL-Embedding-8B","normalize":true,"revision":"2c4565515e0f265c6511776e7193b22c0968ddc7","space":{"'
        'dim":1024,"document_prompt":"<|im_start|>system\\nRepresent the user\'s input.<|im_end|>\\n<|im_start|>'
        'user\\n","document_tail":"<|im_end|>\\n<|im_start|>assistant\\n","id":"es1-a97b88cadbee1c2dec5ff29dc29d'
        '2966","label":"","lexical":false,"max_pixels":1843200,"min_pixels":4096,"model":"Qwen/Qwen3-VL-Embed'
        'ding-8B","normalize":true,"pooling":"last","weights":"2c4565515e0f265c6511776e7193b22c0968ddc7"},"ta'
        'sk":null,"version":1}',
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", GOLDEN)
def test_the_format_is_stable(case):
    make, golden = GOLDEN[case]
    function = make()
    assert json.dumps(function.get_config(), sort_keys=True, separators=(",", ":")) == golden


@pytest.mark.parametrize("case", GOLDEN)
def test_what_released_versions_wrote_is_rebuilt(case):
    make, golden = GOLDEN[case]
    function = make()
    rebuilt = type(function).build_from_config(json.loads(golden))
    assert rebuilt == function
    assert rebuilt.get_config() == json.loads(golden)
    settings, expected = rebuilt.embedder.settings, function.embedder.settings
    for name in ("dim", "task", "instruction", "normalize", "max_tokens", "like", "max_pixels", "special_tokens"):
        if name != "dim" or expected.dim is not None:
            assert getattr(settings, name) == getattr(expected, name)


def test_the_names_are_stable():
    assert (Qwen3EmbeddingFunction.name(), GemmaEmbeddingFunction.name()) == ("embrief-qwen3", "embrief-gemma")
    assert Qwen3VLEmbeddingFunction.name() == "embrief-qwen3-vl"


def test_the_schema_is_closed_and_ships_with_the_package():
    schema = json.loads(files(chroma_embrief).joinpath("config.schema.json").read_text("utf-8"))
    Draft7Validator.check_schema(schema)
    assert schema["additionalProperties"] is False
    assert sorted(schema["required"]) == sorted(json.loads(GOLDEN["hash"][1]))
    assert set(schema["properties"]) - set(schema["required"]) == {"backend", "max_pixels", "special_tokens"}


def test_what_only_says_where_and_how_fast_is_not_persisted(tmp_path):
    plain = Qwen3EmbeddingFunction("embrief/hash")
    tuned = Qwen3EmbeddingFunction(
        "embrief/hash", device="cpu", dtype="float32", truncate="error", batch_tokens=9, cache_dir=tmp_path,
        local_files_only=True, backend="hash",
    )  # fmt: skip
    assert plain.get_config() == tuned.get_config()


def test_get_config_hands_out_a_copy():
    function = Qwen3EmbeddingFunction("embrief/hash")
    function.get_config()["space"]["dim"] = 1
    assert function.get_config()["space"]["dim"] == 1024


def _config(**changes):
    return {**json.loads(GOLDEN["hash"][1]), **changes}


TAMPERED = {
    "extra key": {"surprise": 1},
    "trust_remote_code": {"trust_remote_code": True},
    "device": {"device": "cuda"},
    "cache_dir": {"cache_dir": "/tmp"},
    "absolute path": {"model": "/etc/passwd"},
    "relative path": {"model": "./model"},
    "parent path": {"model": "../model"},
    "parent inside": {"model": "a/../b"},
    "deep path": {"model": "a/b/c"},
    "home": {"model": "~/model"},
    "windows path": {"model": "C:\\model"},
    "url": {"model": "https://example.org/model"},
    "import string": {"model": "os:system"},
    "trailing newline": {"model": "a/b\n"},
    "empty model": {"model": ""},
    "no revision": {"revision": None},
    "revision is a path": {"revision": "../main"},
    "huge dim": {"dim": 10**9},
    "float dim": {"dim": 64.5},
    "boolean dim": {"dim": True},
    "zero tokens": {"max_tokens": 0},
    "instruction no text": {"instruction": ["a"]},
    "local without a space": {"model": "local", "revision": None, "space": None},
    "like is a path": {"like": "./x"},
    "unknown version": {"version": 2},
    "label": {"space": {**_config()["space"], "label": "/home/me"}},
    "extra in space": {"space": {**_config()["space"], "code": "x"}},
}


@pytest.mark.parametrize("case", TAMPERED)
@pytest.mark.parametrize("kind", [Qwen3EmbeddingFunction, GemmaEmbeddingFunction, Qwen3VLEmbeddingFunction])
def test_a_tampered_configuration_is_refused(kind, case):
    for method in (kind.build_from_config, kind.validate_config):
        with pytest.raises(ArgumentError, match=f"Config validation failed for schema '{kind.name()}'"):
            method(_config(**TAMPERED[case]))


def test_a_missing_key_is_refused():
    config = _config()
    del config["instruction"]
    with pytest.raises(ArgumentError, match="instruction"):
        Qwen3EmbeddingFunction.build_from_config(config)


def test_a_configuration_of_a_newer_release_says_so():
    with pytest.raises(ArgumentError, match="newer release of embrief, so upgrade"):
        Qwen3EmbeddingFunction.build_from_config(_config(version=2))


def test_a_hub_id_on_a_branch_in_a_tampered_configuration_is_never_fetched():
    function = Qwen3EmbeddingFunction.build_from_config(
        _config(model="someone/some-model", revision="main", space=None)
    )
    with pytest.raises(ArgumentError, match="full commit id"):
        function.embed_query(["q"])


def test_a_folder_that_has_the_name_of_a_persisted_model_is_never_read(tmp_path, monkeypatch):
    (tmp_path / "someone" / "some-model").mkdir(parents=True)
    (tmp_path / "someone" / "some-model" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    function = Qwen3EmbeddingFunction.build_from_config(
        _config(model="someone/some-model", revision=COMMIT, space=None)
    )
    with pytest.raises(ArgumentError, match="is a folder"):
        function.embed_query(["q"])


def test_vectors_of_another_version_of_a_built_in_model_are_refused():
    old = _config(revision="v0", space=None)
    with pytest.raises(ModelMismatchError, match="version 'v0' of embrief/hash"):
        Qwen3EmbeddingFunction.build_from_config(old).embed_query(["q"])


def test_a_model_that_comes_with_its_package_is_rebuilt():
    function = Qwen3EmbeddingFunction("embrief/tiny-embedding", dim=32)
    rebuilt = Qwen3EmbeddingFunction.build_from_config(function.get_config())
    assert rebuilt.embed_query(["q"])[0].tolist() == function.embed_query(["q"])[0].tolist()
    other = {**function.get_config(), "revision": "v0"}
    with pytest.raises(ModelMismatchError, match="version 'v0' of embrief/tiny-embedding"):
        Qwen3EmbeddingFunction.build_from_config(other).embed_query(["q"])


def test_a_release_that_gives_the_model_another_space_is_refused():
    """A document prompt that changed between releases would silently make old and new documents incomparable."""
    embedder = Embedder("embrief/hash", dim=64)
    from dataclasses import replace

    other = replace(embedder.space, document_prompt="passage: ").to_json()
    function = Qwen3EmbeddingFunction.build_from_config(_config(space=other))
    with pytest.raises(SpaceMismatchError, match="document_prompt"):
        function.embed_query(["q"])


def test_rebuilding_loads_nothing_and_reads_nothing(monkeypatch):
    with FakeRuntime() as fake:
        configs = [
            Qwen3EmbeddingFunction(fake.qwen3, instruction="Find").get_config(),
            Qwen3EmbeddingFunction("someone/some-model", revision=COMMIT).get_config(),
            {**_config(), "model": "local", "revision": None},
        ]

        def no_io(*args, **kwargs):
            raise AssertionError(f"I/O: {args}")

        with monkeypatch.context() as patch:
            patch.setattr(builtins, "open", no_io)
            patch.setattr(socket, "socket", no_io)
            for name in ("stat", "open", "is_dir", "is_file", "exists", "iterdir"):
                patch.setattr(Path, name, no_io)
            rebuilt = [Qwen3EmbeddingFunction.build_from_config(config) for config in configs for _ in range(30)]
            assert not any(function.is_legacy() for function in rebuilt)
            assert rebuilt[0].get_config() == configs[0]
        assert fake.loads == 0


def test_an_update_compares_values_not_the_presence_of_keys():
    function = Qwen3EmbeddingFunction("embrief/hash", dim=64)
    config = function.get_config()
    function.validate_config_update(config, function.get_config())
    function.validate_config_update(config, {**config, "instruction": "Other", "max_tokens": 9})
    with pytest.raises(SpaceMismatchError, match="stored: dim=64, this embedder: dim=32"):
        function.validate_config_update(config, Qwen3EmbeddingFunction("embrief/hash", dim=32).get_config())


def test_the_distance_is_cosine_unless_asked(chroma_client):
    function = Qwen3EmbeddingFunction("embrief/hash", dim=32)
    assert function.default_space() == "cosine"
    for number, (configuration, expected) in enumerate(
        [(None, "cosine"), ({"hnsw": {"ef_search": 50}}, "cosine"), ({"hnsw": {"space": "ip"}}, "ip")]
    ):
        given = json.dumps(configuration)
        collection = open_collection(chroma_client, f"col{number}", function, configuration=configuration)
        assert collection.configuration_json["hnsw"]["space"] == expected
        assert json.dumps(configuration) == given
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for space in ("cosine", "ip", "l2"):
            collection = chroma_client.create_collection(
                f"col-{space}", embedding_function=function, configuration={"hnsw": {"space": space}}
            )
            assert collection.configuration_json["embedding_function"]["type"] == "known"
    assert [str(item.message) for item in caught if "not supported" in str(item.message)] == []


def _write_checkpoint(folder: Path, *, fill: bytes) -> Path:
    """Write the smallest folder that is recognised as a sentence-transformers Qwen3 embedder."""
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "config.json").write_text(
        json.dumps(
            {"model_type": "qwen3", "architectures": ["Qwen3Model"], "hidden_size": 64, "max_position_embeddings": 512}
        )
    )
    (folder / "modules.json").write_text(
        json.dumps(
            [
                {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
                {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
                {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
            ]
        )
    )
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 64, "pooling_mode_lasttoken": True})
    )
    (folder / "tokenizer.json").write_text("{}")
    header = json.dumps({"w": {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + fill * 64)
    return folder  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    return _write_checkpoint(tmp_path / "secret-name", fill=b"a")


def test_a_folder_is_persisted_as_a_digest_never_as_a_path(folder):
    text = json.dumps(Qwen3EmbeddingFunction(folder, instruction="Find").get_config())
    config = json.loads(text)
    assert (config["model"], config["revision"], config["instruction"]) == ("local", None, "Find")
    assert config["space"]["weights"].startswith("sha256:")
    assert "secret-name" not in text


def test_a_folder_without_weights_is_refused_at_construction_rather_than_stored_as_legacy(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsUnavailableError):
        Qwen3EmbeddingFunction(folder)


def test_a_reopened_folder_collection_is_not_legacy_and_says_what_to_pass(folder, open_client):
    open_collection(open_client(), "local", Qwen3EmbeddingFunction(folder))
    collection = open_client().get_collection("local")
    assert collection.configuration_json["embedding_function"]["type"] == "known"
    collection.upsert(ids=["a"], embeddings=[[0.5] * 64], documents=["text"])
    for _ in range(2):
        with pytest.raises(
            WeightsUnavailableError, match=r"Qwen3EmbeddingFunction\(<the folder>, dim=64, normalize=True"
        ) as caught:
            collection.query(query_texts=["q"])
        assert str(caught.value).count("in query.") == 1


def test_a_folder_collection_opens_with_the_folder_wherever_it_is_now(folder, tmp_path, open_client):
    open_collection(open_client(), "local", Qwen3EmbeddingFunction(folder))
    moved = folder.rename(tmp_path / "elsewhere")
    assert open_collection(open_client(), "local", Qwen3EmbeddingFunction(moved)).count() == 0
    other = _write_checkpoint(tmp_path / "secret-name", fill=b"b")
    with pytest.raises(SpaceMismatchError, match="weights"):
        open_collection(open_client(), "local", Qwen3EmbeddingFunction(other))


def test_a_model_that_cannot_be_fetched_fails_before_a_collection_is_made(open_client, tmp_path):
    function = Qwen3EmbeddingFunction(
        "someone/some-model", revision=COMMIT, cache_dir=tmp_path / "cache", local_files_only=True
    )
    with pytest.raises(EmbriefError):
        open_collection(open_client(), "hub", function)
    assert open_client().list_collections() == []
