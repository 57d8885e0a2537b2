"""The process that runs llama.cpp: what it imports, how it ends, and what callers get when it does."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from array import array
from pathlib import Path

import numpy as np
import pytest

from embrief import Embedder
from embrief.errors import BackendError, MissingDependencyError, ModelMismatchError
from embrief.llama import process
from embrief.llama.library import Llama, Wanted
from embrief.llama.process import InChild
from embrief.runtimes.gguf import Gguf

from .conftest import cosines

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("llama")]
PATIENCE = 60.0


def wanted(files: dict[str, Path]) -> Wanted:
    return Wanted(
        file=str(files["qwen3"]), pooling="last", width=48, causal=True, context=1024, threads=1, gpu_layers=0
    )


@pytest.fixture
def runner(files: dict[str, Path]):
    made = InChild(wanted(files), "tiny")
    yield made
    made.close()


ROWS = [array("i", [1, 2, 3, 0]), array("i", [5, 0])]


def alive(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(done) -> None:
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_process_imports_no_diskcache_and_little_else(runner):
    """diskcache reads pickles; `import llama_cpp` brings it."""
    names = set(runner.modules())
    assert "llama_cpp.llama_cpp" in names
    assert not names & {"diskcache", "jinja2", "llama_cpp.llama", "numpy", "torch", "tokenizers", "pickle", "socket"}


def test_this_process_imports_nothing_of_it(files):
    code = (
        "import sys\nfrom embrief import Embedder\n"
        f"Embedder({str(files['qwen3'])!r}).encode(['x'], role='query')\n"
        "print(sorted({'llama_cpp', 'llama_cpp.llama_cpp', 'diskcache', 'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == "[]"


def test_in_this_process_diskcache_stays_out_too(files):
    code = (
        "import sys\nfrom embrief import Embedder\nfrom embrief.runtimes.gguf import Gguf\n"
        f"made = Embedder({str(files['qwen3'])!r}, backend=Gguf(process='own'))\n"
        "print(made.encode(['x'], role='query').vectors.shape, 'diskcache' in sys.modules, 'llama_cpp' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == "(1, 48) False False"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV])
def test_a_process_that_ends_is_an_error_and_the_next_call_starts_another(runner, number):
    expected = runner.run(ROWS)
    before = runner.pid
    os.kill(before, number)
    with pytest.raises(BackendError, match=f"ended by {number.name}"):
        runner.run(ROWS)
    assert np.allclose(np.frombuffer(runner.run(ROWS), "f"), np.frombuffer(expected, "f"))
    assert runner.pid not in (None, before)


def test_a_process_that_is_killed_in_the_middle_of_a_call_is_an_error(runner):
    rows = [array("i", [index % 900 for index in range(1000)])] * 400
    pid = runner.pid
    threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
    with pytest.raises(BackendError, match=r"ended by SIGKILL; perhaps the system was short of memory"):
        runner.run(rows)


def test_processes_are_not_started_for_ever(runner):
    for _ in range(process._STARTS):
        if runner.pid is None:
            runner._start()
        os.kill(runner.pid, signal.SIGKILL)
        with pytest.raises(BackendError, match="SIGKILL"):
            runner.run(ROWS)
    with pytest.raises(BackendError, match="times in a row"):
        runner.run(ROWS)


def test_loads_that_end_count_too(runner, monkeypatch):
    os.kill(runner.pid, signal.SIGKILL)
    with pytest.raises(BackendError, match="SIGKILL"):
        runner.run(ROWS)
    monkeypatch.setattr(process, "_COMMAND", (sys.executable, "-c", "raise SystemExit(3)"))
    for _ in range(process._STARTS - 1):
        with pytest.raises(ModelMismatchError, match="ended with 3"):
            runner.run(ROWS)
    with pytest.raises(BackendError, match="times in a row"):
        runner.run(ROWS)


def test_after_an_abort_another_file_of_that_name_is_refused(files, tmp_path, qwen3_model):
    """Its vectors would belong to a space that is named after the first."""
    for place, declared in (("own.gguf", False), ("declared.gguf", True)):
        file = Path(shutil.copy(files["qwen3"], tmp_path / place))
        before = set(process._all)
        embedder = Embedder(qwen3_model, backend=Gguf(file=str(file))) if declared else Embedder(file)
        embedder.encode(["x"], role="query")
        (made,) = set(process._all) - before
        content = bytearray(file.read_bytes())
        content[-200] ^= 1
        file.write_bytes(content)
        os.kill(made.pid, signal.SIGKILL)
        with pytest.raises(BackendError, match="SIGKILL"):
            embedder.encode(["y"], role="query")
        with pytest.raises(ModelMismatchError, match="changed since its facts were read"):
            embedder.encode(["z"], role="query")


def test_a_declared_file_that_is_written_again_before_it_is_loaded_is_refused(files, tmp_path, qwen3_model):
    file = Path(shutil.copy(files["qwen3"], tmp_path / "declared.gguf"))
    embedder = Embedder(qwen3_model, backend=Gguf(file=str(file)))
    before = embedder.fingerprint
    content = bytearray(file.read_bytes())
    content[-200] ^= 1
    file.write_bytes(content)
    with pytest.raises(ModelMismatchError, match="changed since its facts were read"):
        embedder.encode(["x"], role="query")
    del embedder
    again = Embedder(qwen3_model, backend=Gguf(file=str(file)))
    again.encode(["x"], role="query")
    assert again.fingerprint != before


def test_after_a_lack_of_memory_shorter_texts_run(files, monkeypatch):
    made = Llama(wanted(files))
    expected = made.run(ROWS)
    monkeypatch.setattr(made._api, "llama_init_from_model", lambda *_: None)
    with pytest.raises(MemoryError, match="no room for 1024 tokens"):
        made.run([array("i", [1] * 1000)])
    monkeypatch.undo()
    assert made.run(ROWS) == expected
    made.close()


def test_a_library_that_is_not_there_is_a_missing_dependency(tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError, match="library cannot be loaded"):
        process.can_offload()


def test_what_the_library_would_abort_over_is_refused_first(runner):
    for row in (array("i", [-1]), array("i", [10**6]), array("i", []), array("i", [1] * 1025)):
        with pytest.raises(BackendError, match="no token, too many, or one that the model has no vector for"):
            runner.run([row])
    assert len(runner.run(ROWS)) == 2 * 48 * 4


def test_closing_ends_the_process(runner):
    pid = runner.pid
    runner.close()
    assert not alive(pid)


CHILD = """
import sys, time
from embrief.llama import process
from embrief import Embedder
made = []
start = process.InChild._start
def noted(self):
    start(self)
    print(self.pid, flush=True)
process.InChild._start = noted
embedder = Embedder({file!r}, max_tokens=1024)
embedder.load()
"""


@pytest.mark.parametrize("end", ["kill", "exit", "exit while a call runs", "kill while a call runs"])
def test_the_process_ends_with_the_one_that_asks(end, files):
    code = CHILD.format(file=str(files["qwen3"]))
    if "call" in end:
        code += (
            "import threading\n"
            "threading.Thread(target=lambda: embedder.encode(['word ' * 900] * 3000, role='document'),"
            " daemon=True).start()\ntime.sleep(1)\nprint('running', flush=True)\n"
        )
    code += "sys.stdin.readline()\n"
    asking = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with asking:
        pid = int(asking.stdout.readline())
        assert alive(pid)
        if "call" in end:
            assert asking.stdout.readline() == "running\n"
        if end.startswith("kill"):
            asking.kill()
        asking.stdin.close()
        code = asking.wait(PATIENCE)
    assert code == (-signal.SIGKILL if end.startswith("kill") else 0)
    wait_for(lambda: not alive(pid))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_process_starts_its_own_and_leaves_its_parents_alone(runner):
    expected = runner.run(ROWS)
    parents = runner.pid
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            same = runner.run(ROWS) == expected
            os.write(writer, b"%d %d" % (same, runner.pid not in (None, parents)))
            runner.close()
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        assert answer.read() == b"1 1"
    os.waitpid(pid, 0)
    assert runner.run(ROWS) == expected
    assert runner.pid == parents


def test_what_is_printed_gets_not_among_the_answers(runner, monkeypatch):
    """Standard output of the process is its standard error: C code may print whatever it likes."""
    for _ in range(3):
        assert len(runner.run(ROWS)) == 2 * 48 * 4
    assert os.readlink(f"/proc/{runner.pid}/fd/1") == os.readlink(f"/proc/{runner.pid}/fd/2")


async def test_an_event_loop_is_not_held_up(files):
    embedder = Embedder(files["qwen3"], max_tokens=1024)
    turns = 0
    task = asyncio.create_task(embedder.aencode(["word " * 300] * 40, role="document"))
    while not task.done():
        await asyncio.sleep(0.005)
        turns += 1
    assert (await task).vectors.shape == (40, 48)
    assert turns > 3


def test_in_this_process_vectors_are_the_same(files):
    texts = ["a", "b c d", "", "word " * 100]
    own = Embedder(files["gemma"], backend=Gguf(process="own")).encode(texts, role="document").vectors
    assert cosines(own, Embedder(files["gemma"]).encode(texts, role="document").vectors).min() > 0.999999
