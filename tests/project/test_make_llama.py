"""`.ci/make_llama.py`: what it refuses, and that a folder appears only when all of it works. cmake is a stub."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it refuses Windows; the stubs are shell scripts")

SCRIPT = Path(__file__).parents[2] / ".ci" / "make_llama.py"
# Writes down its calls; --build makes what the compiler would, unless FAIL is there.
CMAKE = """#!/bin/sh
echo "$@" >> "$CALLS"
if [ "$1" = --build ]; then
    mkdir -p "$2/bin"
    echo compiled >> "$2/compiled"
    if [ -e "$FAIL" ]; then exit 1; fi
    for name in llama-server llama-quantize; do
        printf '#!/bin/sh\\nexit %s\\n' "$ENDS" > "$2/bin/$name"
        chmod +x "$2/bin/$name"
    done
    touch "$2/bin/libllama.so.0" "$2/bin/libllama.dylib" "$2/bin/libother.a"
    ln -sf libllama.so.0 "$2/bin/libllama.so"
fi
"""


class Builder:
    """The script with a small sdist, in a cache folder of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tools, self.calls, self.fail = folder / "tools", folder / "calls", folder / "fail"
        self._monkeypatch = monkeypatch
        spec = importlib.util.spec_from_file_location("make_llama", SCRIPT)
        assert spec is not None
        assert spec.loader is not None
        self.module: ModuleType = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        self.tools.mkdir()
        self.calls.touch()
        for name, content in (("cmake", CMAKE), ("c++", "#!/bin/sh\n"), ("cc", "#!/bin/sh\n"), ("make", "#!/bin/sh\n")):
            (self.tools / name).write_text(content, "utf-8")
            (self.tools / name).chmod(0o755)
        self.sdist = folder / "source.tar.gz"
        license_file = folder / "LICENSE"
        license_file.write_text("MIT", "utf-8")
        with tarfile.open(self.sdist, "w:gz") as archive:
            archive.add(license_file, f"{self.module.SOURCE}/LICENSE")
            archive.add(license_file, f"{self.module.PACKAGE}/llama_cpp.py")
            archive.add(license_file, f"{self.module.TOP}/elsewhere")
        monkeypatch.setattr(self.module, "SHA256", hashlib.sha256(self.sdist.read_bytes()).hexdigest())
        # Nothing of this machine: neither its compiler nor a cmake beside its Python.
        monkeypatch.setattr(sys, "executable", str(folder / "nowhere" / "python"))
        monkeypatch.setenv("PATH", f"{self.tools}:/usr/bin:/bin")
        real = self.module.shutil.which
        monkeypatch.setattr(
            self.module.shutil, "which", lambda name, path=None: real(name, path=path or str(self.tools))
        )
        for variable in ("CC", "CXX"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        monkeypatch.setenv("CALLS", str(self.calls))
        monkeypatch.setenv("FAIL", str(self.fail))
        monkeypatch.setenv("ENDS", "0")
        self.target: Path = self.module.target_folder()

    def run(self, *arguments: str) -> int | str | None:
        """Its exit code, or what it ends with."""
        self._monkeypatch.setattr(sys, "argv", ["make_llama.py", *(arguments or ("--sdist", str(self.sdist)))])
        try:
            code: int = self.module.main()
        except SystemExit as end:
            return end.code
        return code

    def builds(self) -> int:
        return self.calls.read_text("utf-8").count("--build")


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Builder:
    return Builder(tmp_path, monkeypatch)


def test_what_is_built_and_that_it_is_built_once(builder: Builder, capsys: pytest.CaptureFixture[str]) -> None:
    assert builder.run("--where") == 1
    assert builder.run() == 0
    assert builder.target.parent == builder.target.parents[1] / "llama"
    assert sorted(path.name for path in (builder.target / "bin").iterdir()) == ["llama-quantize", "llama-server"]
    libraries = sorted(path.name for path in (builder.target / "lib").iterdir())
    assert libraries == ["libllama.dylib", "libllama.so", "libllama.so.0"]
    assert (builder.target / "lib" / "libllama.so").is_symlink()
    assert (builder.target / "LICENSE").read_text("utf-8") == "MIT"
    stamp = json.loads((builder.target / "build.json").read_text("utf-8"))
    assert stamp["version"] == builder.module.VERSION
    assert stamp["jobs"] >= 1
    assert stamp["seconds"] >= 0
    assert [path.name for path in builder.target.parent.iterdir()] == [builder.target.name]
    capsys.readouterr()
    assert builder.run() == 0
    assert "already built" in capsys.readouterr().out
    assert builder.builds() == 1
    assert builder.run("--where") == 0
    assert capsys.readouterr().out.strip() == str(builder.target)


def test_a_build_without_the_python_package_gets_it_and_is_not_built_again(builder: Builder) -> None:
    assert builder.run() == 0
    package = builder.target / "python" / "llama_cpp"
    assert [path.name for path in package.iterdir()] == ["llama_cpp.py"]
    builder.module.shutil.rmtree(builder.target / "python")
    assert builder.run() == 0
    assert [path.name for path in package.iterdir()] == ["llama_cpp.py"]
    assert builder.builds() == 1
    assert [path.name for path in builder.target.parent.iterdir()] == [builder.target.name]


def test_other_flags_build_anew_and_take_its_place(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert builder.run() == 0
    monkeypatch.setattr(builder.module, "FLAGS", (*builder.module.FLAGS, "GGML_LTO=ON"))
    assert builder.run("--where") == 1
    assert builder.run() == 0
    assert "-DGGML_LTO=ON" in builder.calls.read_text("utf-8")
    assert builder.run("--where") == 0
    assert [path.name for path in builder.target.parent.iterdir()] == [builder.target.name]


def test_a_build_that_fails_leaves_no_folder_and_goes_on(builder: Builder) -> None:
    builder.fail.touch()
    assert "compiler failed" in str(builder.run())
    assert not builder.target.exists()
    assert builder.run("--where") == 1
    builder.fail.unlink()
    compiled = list(builder.target.parent.glob("*/build/compiled"))
    assert len(compiled) == 1
    assert builder.run() == 0
    assert json.loads((builder.target / "build.json").read_text("utf-8"))["resumed"] is True


def test_what_does_not_start_is_no_build(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDS", "132")  # as by an instruction that this processor lacks
    assert "does not start" in str(builder.run())
    assert not builder.target.exists()


def test_a_build_that_no_longer_starts_is_made_anew(builder: Builder) -> None:
    assert builder.run() == 0
    (builder.target / "bin" / "llama-server").unlink()
    assert builder.run() == 0
    assert (builder.target / "bin" / "llama-server").exists()
    assert builder.builds() == 2


def test_another_file_is_not_unpacked(builder: Builder, tmp_path: Path) -> None:
    other = tmp_path / "other.tar.gz"
    other.write_bytes(b"something else")
    said = str(builder.run("--sdist", str(other)))
    assert "expected" in said
    assert hashlib.sha256(b"something else").hexdigest() in said
    assert builder.builds() == 0
    assert "no file" in str(builder.run("--sdist", str(tmp_path / "missing")))


@pytest.mark.parametrize(
    ("lacks", "said"),
    [("cmake", "pip install cmake"), ("make", "ninja-build"), ("c++", "no C++ compiler"), ("cc", "no C compiler")],
)
def test_what_is_missing_is_told_with_its_remedy(
    builder: Builder, capsys: pytest.CaptureFixture[str], lacks: str, said: str
) -> None:
    (builder.tools / lacks).unlink()
    assert builder.run() == 1
    assert said in capsys.readouterr().out
    assert not builder.target.parent.exists()


def test_a_compiler_by_variable(
    builder: Builder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -m64")
    assert builder.run() == 1
    assert "CXX=no-such-compiler is not found" in capsys.readouterr().out
    monkeypatch.setenv("CXX", "c++ -m64")
    assert builder.run() == 0


def test_two_at_once(builder: Builder) -> None:
    import fcntl

    builder.fail.touch()
    builder.run()
    lock = next(builder.target.parent.glob("*.work/lock"))
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "another process" in str(builder.run())
    assert not builder.target.exists()
