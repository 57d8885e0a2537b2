"""Configuration files: how YAML is read, where files are looked for, and what is wrong said with its place."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import embrief
from embrief import ConfigError, Embedder, MissingDependencyError, UnknownModelError, load_config, use_config
from embrief.config.process import user_file

HASH = "models: {small: {provider: hash, dim: 64}}\n"


def problems(read, text):
    with pytest.raises(ConfigError) as caught:
        read(text)
    return [problem.rpartition("embrief.yaml:")[2] for problem in caught.value.problems]


def test_a_whole_file(read, write):
    config = read("""
version: 1
default_model: small
models:
  small: {provider: hash, dim: 64}
  far:
    provider: tei
    base_url: http://127.0.0.1:8080
    model_id: BAAI/bge-m3
    timeout: 1m30s
    cache: true
    cache_ttl: 1h
  judge: {provider: native, model_id: embrief/tiny-reranker}
reranker: judge
fallback_chain: [far, small]
runs:
  BAAI/bge-m3: far
""")
    assert list(config.models) == ["small", "far", "judge"]
    assert config.default_model == "small"
    assert config.reranker == "judge"
    assert config.fallback_chain == ("far", "small")
    assert dict(config.runs) == {"BAAI/bge-m3": "far"}
    assert config.models["far"].settings["timeout"] == 90.0
    assert config.models["far"].settings["cache_ttl"] == 3600.0
    assert config.models["far"].settings["cache"] is True
    assert config.models["far"].where.endswith("embrief.yaml:6:3")
    assert config.notes == []
    assert not config.allow_degraded


def test_it_may_stand_under_an_outer_key_and_be_empty(read):
    assert list(read("embeddings:\n  models: {small: {provider: hash}}\n").models) == ["small"]
    for text in ("", "# nothing\n", "---\n", "null\n", "models:\n", "embeddings:\n"):
        assert read(text).models == {}
    assert "move it into that" in problems(read, "embeddings: {models: {}}\nreranker: x\n")[0]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("30s", 30), ("1h", 3600), ("500ms", 0.5), ("1h30m", 5400), ("2d", 172800), ("1.5s", 1.5), ("45", 45),
     ("0.5", 0.5), ("'45s'", 45), ("1m500ms", 60.5)],
)  # fmt: skip
def test_times(read, value, seconds):
    text = f"models: {{m: {{provider: tei, base_url: 'http://127.0.0.1:1', timeout: {value}}}}}"
    assert read(text).models["m"].settings["timeout"] == seconds


@pytest.mark.parametrize("value", ["30 s", "s", "-3", "0", "0s", "1e12", "true", "soon", "3x", "[1]", "''", "1s1h"])
def test_what_is_no_time(read, value):
    text = f"models:\n  m:\n    provider: tei\n    base_url: http://127.0.0.1:1\n    timeout: {value}\n"
    assert problems(read, text)[0].startswith("5:14: models.m.timeout is ")


def test_the_traps_of_yaml(read):
    """What YAML 1.1 reads as something else: digits of a commit, `no`, an octal number."""
    sha = "0123456789012345678901234567890123456789"
    config = read(f"""
models:
  no: {{provider: hash, dim: 012, revision: {sha}}}
  1e3: {{provider: hash, instruction: 12:30, task: on}}
  "2026-11-26": {{provider: hash, normalize: true, revision: !!str 12}}
""")
    assert list(config.models) == ["no", "1e3", "2026-11-26"]
    assert config.models["no"].settings["dim"] == 12
    assert config.models["no"].settings["revision"] == sha
    assert config.models["1e3"].settings == {"provider": "hash", "instruction": "12:30", "task": "on"}
    assert config.models["2026-11-26"].settings["revision"] == "12"
    for word in ("no", "off", "yes", "0", "'false'"):
        assert "is true or false" in problems(read, f"models: {{m: {{provider: hash, normalize: {word}}}}}")[0]
    assert read("models: {m: {provider: hash, instruction: ''}}").models["m"].settings["instruction"] == ""
    assert "instruction" not in read("models: {m: {provider: hash, instruction: }}").models["m"].settings


def test_duplicate_keys_at_any_depth(read):
    assert problems(read, "models: {}\nmodels: {}\n") == [
        "2:1: 'models' is here a second time (first in line 1); leave one"
    ]
    text = "models:\n  m: {provider: hash}\n  m: {provider: hash}\n"
    assert problems(read, text)[0].startswith("3:3: 'm' is here a second time (first in line 2)")
    assert problems(read, "models:\n  m: {dim: 8, dim: 8}\n")[0].startswith("2:15: 'dim' is here a second time")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: &x 1\nb: *x\n", "2:4: *x repeats what stands elsewhere"),
        ("models:\n  a: {<<: {dim: 8}}\n", "2:7: '<<' merges mappings"),
        ("models: !!python/object/apply:os.system [x]\n", "1:9: the tag "),
        ("dim: !!int 12\n", "1:6: the tag "),
        ("a: 1\n---\nb: 2\n", "2:1: a second document begins here"),
        ("a: [1, 2\n", "2:1: this is no YAML"),
        ("a: b: c\n", "1:5: this is no YAML"),
        ("a: 'x\n", "this is no YAML"),
        ("\ta: 1\n", "1:1: this is no YAML"),
        ("? [a]\n: 1\n", "1:3: a key is a text"),
        ("[" * 40 + "]" * 40, "nested too deeply"),
        ("[" * 100_000, "nested too deeply"),
        ("a: \x01\n", "1:1: there is a character that YAML does not allow"),
        (b"a: 1\nb: \xff\n", "2:1: the file is not in UTF-8"),
        ("# " + "x" * 300_000, "more than 256 KiB"),
        ("- a\n", "1:1: the configuration is a mapping"),
        ("just words\n", "1:1: the configuration is a mapping"),
        ("models: [a]\n", "1:9: models is a mapping"),
        ("models: {a: 7}\n", "1:13: models.a is a mapping"),
        ("version: 2\n", "1:10: version: 2 is not known"),
        ("version: '1.0'\n", "version: 1.0 is not known"),
        ("fallback_chain: a\n", "1:17: fallback_chain is a list of names"),
        ("fallback_chain: [[a]]\n", "is one value, not a list"),
    ],
)  # fmt: skip
def test_what_is_no_configuration(read, text, says):
    found = problems(read, text)
    assert says in found[0]


def test_a_bomb_of_anchors_is_refused_at_once(read):
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    found = problems(read, "\n".join(lines))
    assert len(found) == 21
    assert found[-1] == "and 58 more"


def test_all_problems_are_told_at_once_in_the_files_order(read):
    text = """
default_model: smal
models:
  small:
    provider: hsah
    dim: many
  other:
    provider: tei
    timeuot: 3
    base_url: [x]
fallback_chain: [small, othr]
"""
    assert problems(read, text) == [
        "2:16: default_model: 'smal' is not known; did you mean small?",
        "5:15: models.small.provider: 'hsah' is not known; did you mean hash?",
        "6:10: models.small.dim is a whole number of at least 1, not 'many'",
        "9:5: models.other has no setting 'timeuot'; did you mean timeout?",
        "10:15: models.other.base_url is one value, not a list",
        "11:25: fallback_chain: 'othr' is not known; did you mean other?",
    ]
    with pytest.raises(ConfigError, match=r"embrief\.yaml has 6 problems:\n  .*2:16") as caught:
        read(text)
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.problems == caught.value.problems
    assert str(again) == str(caught.value)


def test_one_problem_is_one_sentence(read, tmp_path):
    with pytest.raises(ConfigError) as caught:
        read("modles: {}\n")
    assert (
        str(caught.value)
        == f"{tmp_path}/embrief.yaml:1:1: the configuration has no setting 'modles'; did you mean models?"
    )


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"no\.yaml: the configuration cannot be read \(No such file"):
        load_config(tmp_path / "no.yaml")
    with pytest.raises(ConfigError, match="this is a folder; a configuration is a file"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match="cannot be a path: it has a null"):
        load_config("a\0b")
    with pytest.raises(embrief.ArgumentTypeError, match="path is a string or a path, not int"):
        load_config(7)
    (tmp_path / "x.yaml").write_text(HASH)
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(MissingDependencyError, match=r"x\.yaml is read with PyYAML: pip install .*config"):
        load_config(tmp_path / "x.yaml")


def test_the_users_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/x")
    assert user_file() == Path("/x/embrief/embrief.yaml")
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/me")
    assert user_file() == Path("/home/me/.config/embrief/embrief.yaml")
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/x")
    assert user_file() == Path("/home/me/Library/Application Support/embrief/embrief.yaml")
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
    monkeypatch.setenv("APPDATA", "/roaming")
    assert user_file() == Path("/roaming/embrief/embrief.yaml")
    monkeypatch.setenv("APPDATA", "roaming")
    assert user_file() == Path("/home/me/AppData/Roaming/embrief/embrief.yaml"), "never in the working directory"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the user's folder is another one")
def test_where_the_configuration_is_looked_for(monkeypatch, tmp_path, write):
    """The variable first, then the user's folder, and never the working directory."""
    here = tmp_path / "here"
    (here / "embrief").mkdir(parents=True)
    for place in (here, here / "embrief"):
        (place / "embrief.yaml").write_text(HASH.replace("small", "from-here"))
    monkeypatch.chdir(here)
    monkeypatch.delenv("EMBRIEF_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", ".")
    with pytest.raises(UnknownModelError):
        Embedder("from-here")
    home = tmp_path / "home"
    (home / "embrief").mkdir(parents=True)
    (home / "embrief" / "embrief.yaml").write_text(HASH.replace("small", "from-home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    with pytest.raises(UnknownModelError):
        Embedder("from-home")  # looked for once per process
    use_config(None)
    assert Embedder("from-home").dim == 64
    monkeypatch.setenv("EMBRIEF_CONFIG", str(write(HASH)))
    use_config(None)
    assert Embedder("small").dim == 64
    with pytest.raises(UnknownModelError):
        Embedder("from-home")
    monkeypatch.setenv("EMBRIEF_CONFIG", "")
    use_config(None)
    with pytest.raises(UnknownModelError):
        Embedder("from-home")
    monkeypatch.setenv("EMBRIEF_CONFIG", str(tmp_path / "gone.yaml"))
    use_config(None)
    with pytest.raises(ConfigError, match=r"gone\.yaml"):
        Embedder("small")
    # A folder is a folder: no configuration is read for it.
    assert Embedder(Path(embrief.__file__).parent / "facts/records/tiny_embedding").spec


def test_use_config(write, monkeypatch):
    path = write(HASH)
    for given in (str(path), path, load_config(path)):
        use_config(given)
        assert Embedder("small").dim == 64
        use_config(None)
        with pytest.raises(UnknownModelError):
            Embedder("small")
    use_config(path)
    with pytest.raises(ConfigError):
        use_config("/no/such/file")
    assert Embedder("small").dim == 64, "the one before stays"


def test_no_yaml_is_imported_where_there_is_no_file():
    code = (
        "import sys; from embrief import Embedder; Embedder('hash'); Embedder(); "
        "assert 'yaml' not in sys.modules; assert 'urllib.request' not in sys.modules; print('done')"
    )
    environment = {**os.environ, "XDG_CONFIG_HOME": "/nowhere"}
    for config in (None, ""):
        environment.pop("EMBRIEF_CONFIG", None)
        if config is not None:
            environment["EMBRIEF_CONFIG"] = config
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.stdout.strip() == "done", done.stderr
