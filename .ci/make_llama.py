"""Build llama.cpp once, into the user's cache folder: llama-server, llama-quantize and the shared libraries.

    python .ci/make_llama.py [--jobs N] [--sdist FILE]    build, unless it is there already
    python .ci/make_llama.py --where                      print the folder; the exit code is 1 if nothing is built

The tests that ask a real server use it where it is there, and so do those of GGUF files. The source is the one that
llama-cpp-python carries in its sdist (MIT, as llama.cpp itself); its Python package, which is ctypes alone, is laid
beside: PYTHONPATH=FOLDER/python LLAMA_CPP_LIB_PATH=FOLDER/lib.
A build that was interrupted goes on where it stopped; the folder appears in its place only when all of it works.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

VERSION = "0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
# What the changelog of that version says it carries. Told to cmake, which would ask git otherwise.
COMMIT = "0c1e57098"
TOP = f"llama_cpp_python-{VERSION}"
SOURCE = f"{TOP}/vendor/llama.cpp"
PACKAGE = f"{TOP}/llama_cpp"
TARGETS = ("llama-server", "llama-quantize")
ORIGIN = "@loader_path" if sys.platform == "darwin" else "$ORIGIN"
FLAGS = (
    "CMAKE_BUILD_TYPE=Release",
    # Half the compiler's time of -O3. Only what computes is worth more: ggml, see FAST.
    "CMAKE_C_FLAGS_RELEASE=-O1 -DNDEBUG",
    "CMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG",
    # A cache folder may be shared by machines or kept from run to run: x86-64 gets AVX2, no more.
    "GGML_NATIVE=OFF",
    "BUILD_SHARED_LIBS=ON",
    # Found from bin/ as from lib/, wherever the folder is.
    "CMAKE_BUILD_WITH_INSTALL_RPATH=ON",
    f"CMAKE_INSTALL_RPATH={ORIGIN};{ORIGIN}/../lib",
    "LLAMA_BUILD_UI=OFF",
    "LLAMA_USE_PREBUILT_UI=OFF",
    "LLAMA_OPENSSL=OFF",
    "LLAMA_BUILD_TESTS=OFF",
    "LLAMA_BUILD_EXAMPLES=OFF",
    "LLAMA_BUILD_APP=OFF",
    "LLAMA_BUILD_NUMBER=0",
    f"LLAMA_BUILD_COMMIT={COMMIT}",
)
# cmake reads this when it comes to the project ggml; what is set there ends with that folder.
FAST = 'set(CMAKE_C_FLAGS_RELEASE "-O3 -DNDEBUG")\nset(CMAKE_CXX_FLAGS_RELEASE "-O3 -DNDEBUG")\n'


def cache_folder() -> Path:
    """The user's cache folder, as embrief itself finds it."""
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path.home() / ".cache"


def target_folder() -> Path:
    """Where the build goes: bin/, lib/, LICENSE and build.json, which says how it was made."""
    machine = f"{platform.system()}-{platform.machine()}".lower()
    return cache_folder() / "embrief" / "llama" / f"{VERSION}-{machine}"


def has_python(folder: Path) -> bool:
    """Is the Python package there?"""
    return (folder / "python" / "llama_cpp" / "llama_cpp.py").is_file()


def is_built(folder: Path) -> bool:
    """Is there a build of this version with these flags?"""
    try:
        stamp = json.loads((folder / "build.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(stamp, dict) and stamp.get("sha256") == SHA256 and stamp.get("flags") == [*FLAGS, FAST]


def starts(folder: Path) -> bool:
    """Do its programs find their libraries and the instructions that they need?"""
    for name in TARGETS:
        # llama-quantize knows no --version, and ends with 1 after its usage.
        option = "--version" if name == "llama-server" else "--help"
        try:
            done = subprocess.run([folder / "bin" / name, option], capture_output=True, timeout=120, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return False
        if done.returncode not in ((0,) if name == "llama-server" else (0, 1)):
            return False
    return True


def tool(name: str) -> str | None:
    """Find a program: beside this Python (pip install cmake), then on the path."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


def missing() -> list[str]:
    """What this machine lacks, each with its remedy."""
    found = []
    if sys.platform == "win32":
        return ["Windows is not handled here; use WSL"]
    if not tool("cmake"):
        found.append("cmake is not here: apt install cmake, brew install cmake, or pip install cmake")
    if not tool("ninja") and not tool("make"):
        found.append("neither ninja nor make is here: apt install ninja-build, or brew install ninja")
    for variable, names, what in (("CC", ("cc", "gcc", "clang"), "C"), ("CXX", ("c++", "g++", "clang++"), "C++")):
        # CC="ccache gcc" is a program and an argument.
        given = shlex.split(os.environ.get(variable, ""))[:1]
        if not any(tool(name) for name in given or names):
            said = f"{variable}={given[0]} is not found" if given else f"no {what} compiler is here"
            found.append(f"{said}: apt install g++, or xcode-select --install")
    return found


def digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def fetch(work: Path, given: Path | None) -> Path:
    """Give the sdist, with the bytes that are expected; from pip's index unless a file is given."""
    file = given or work / f"{TOP}.tar.gz"
    if given is None and not (file.is_file() and digest(file) == SHA256):
        file.unlink(missing_ok=True)
        wanted = work / "wanted.txt"
        # pip asks the package for its metadata, which runs code of it: the hash is compared before that.
        wanted.write_text(f"llama-cpp-python=={VERSION} --hash=sha256:{SHA256}\n", "utf-8")
        command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-input"]
        command += ["--no-deps", "--no-binary", "llama-cpp-python", "--dest", str(work), "-r", str(wanted)]
        print(f"llama: fetching llama-cpp-python {VERSION} (77 MB)", flush=True)
        if subprocess.run(command, check=False).returncode != 0:
            sys.exit("llama: pip could not fetch the source; with the file at hand: --sdist FILE")
    if not file.is_file():
        sys.exit(f"llama: there is no file {file}")
    if (found := digest(file)) != SHA256:
        sys.exit(f"llama: {file} has sha256 {found}, expected {SHA256}: another file, or a damaged one")
    return file


def unpack(sdist: Path, work: Path) -> Path:
    """Give the folder with llama.cpp's source."""
    done = work / "unpacked"
    if not done.exists():
        shutil.rmtree(work / TOP, ignore_errors=True)
        with tarfile.open(sdist) as archive:
            wanted = [member for member in archive if member.name.startswith((f"{SOURCE}/", f"{PACKAGE}/"))]
            archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 and later
            archive.extractall(work, members=wanted)
        done.touch()
    return work / SOURCE


def lay_python(target: Path, sdist: Path | None) -> None:
    """Put the Python package into a build that was made without it."""
    work = target.with_name(f"{target.name}.python.work")
    work.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fetch(work, sdist)) as archive:
        wanted = [member for member in archive if member.name.startswith(f"{PACKAGE}/")]
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(work, members=wanted)
    staged = work / "python"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    (work / PACKAGE).rename(staged / "llama_cpp")
    if not has_python(target):
        shutil.rmtree(target / "python", ignore_errors=True)
        staged.rename(target / "python")
    shutil.rmtree(work)


def build(source: Path, work: Path, jobs: int) -> Path:
    """Configure and compile; give the folder with the programs and libraries."""
    cmake = tool("cmake")
    assert cmake is not None
    fast = work / "fast.cmake"
    fast.write_text(FAST, "utf-8")
    output = work / "build"
    command = [cmake, "-S", str(source), "-B", str(output), *(f"-D{flag}" for flag in FLAGS)]
    command += [f"-DCMAKE_PROJECT_ggml_INCLUDE={fast}", "-Wno-dev"]
    if ninja := tool("ninja"):
        command += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    with (work / "configure.log").open("wb") as log:
        if subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode != 0:
            sys.exit(f"llama: cmake could not configure the build; see {work / 'configure.log'}")
    print(f"llama: compiling with {jobs} jobs: minutes on two free cores, up to an hour on busy ones", flush=True)
    command = [cmake, "--build", str(output), "--parallel", str(jobs), "--target", *TARGETS]
    if subprocess.run(command, check=False).returncode != 0:
        sys.exit("llama: the compiler failed, see above; the next run goes on from here")
    return output / "bin"


def stage(built: Path, source: Path, work: Path, stamp: dict[str, Any]) -> Path:
    """Lay out what was built beside where it goes."""
    staged = work / "staged"
    shutil.rmtree(staged, ignore_errors=True)
    for folder in ("bin", "lib"):
        (staged / folder).mkdir(parents=True)
    for name in TARGETS:
        shutil.copy2(built / name, staged / "bin" / name)
    for file in sorted(built.iterdir()):
        if file.name.startswith("lib") and (".so" in file.name or file.suffix == ".dylib"):
            shutil.copy2(file, staged / "lib" / file.name, follow_symlinks=False)
    shutil.copytree(work / PACKAGE, staged / "python" / "llama_cpp")
    shutil.copy2(source / "LICENSE", staged / "LICENSE")
    (staged / "build.json").write_text(json.dumps(stamp, indent=2) + "\n", "utf-8")
    return staged


def put(staged: Path, target: Path) -> None:
    """Move a finished folder to its place; one of other flags makes way."""
    old = target.with_name(f"{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    staged.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def make(target: Path, jobs: int, sdist: Path | None) -> None:
    import fcntl  # not on Windows, which `missing` has refused

    # One folder per set of flags: what an interrupted build of others left must not be gone on with.
    mark = hashlib.sha256("\n".join([SHA256, *FLAGS, FAST]).encode()).hexdigest()[:8]
    work = target.with_name(f"{target.name}.{mark}.work")
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            sys.exit(f"llama: another process is building in {work}")
        resumed = (work / "build").exists()
        load, start = os.getloadavg()[0], time.monotonic()
        source = unpack(fetch(work, sdist), work)
        began = time.monotonic()
        built = build(source, work, jobs)
        stamp = {
            "version": VERSION,
            "commit": COMMIT,
            "sha256": SHA256,
            "flags": [*FLAGS, FAST],
            "seconds": round(time.monotonic() - began),
            "seconds_of_source": round(began - start),
            "jobs": jobs,
            "niceness": os.nice(0),
            "load_before_and_after": [round(load, 1), round(os.getloadavg()[0], 1)],
            "resumed": resumed,
        }
        staged = stage(built, source, work, stamp)
        if not starts(staged):
            sys.exit(f"llama: what was built does not start: {staged / 'bin' / TARGETS[0]} --version says why")
        put(staged, target)
        shutil.rmtree(work)
    print(f"llama: built in {stamp['seconds']} s with {jobs} jobs: {target}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument("--jobs", type=int, default=cores, help="compilers at once; each takes up to 1.5 GB")
    parser.add_argument("--sdist", type=Path, help=f"{TOP}.tar.gz, if it is here already")
    parser.add_argument("--where", action="store_true", help="print the folder; exit code 1 if nothing is built there")
    options = parser.parse_args()
    target = target_folder()
    if options.where:
        print(target)
        return 0 if is_built(target) else 1
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: at least 1")
    if is_built(target):
        if starts(target):
            if not has_python(target):
                lay_python(target, options.sdist)
            print(f"llama: already built: {target}")
            return 0
        print("llama: what is built here does not start on this machine: building anew")
    if lacks := missing():
        for line in lacks:
            print(f"llama: {line}")
        return 1
    make(target, options.jobs, options.sdist)
    return 0


if __name__ == "__main__":
    sys.exit(main())
