"""`embrief embed` and `embrief rerank`: lines in, answers out, in order, whatever a line holds and however it ends."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import embrief
from embrief.cli import app, items, rows
from embrief.cli.items import Keys, read_items
from embrief.cli.piping import Pipe

WAIT = 60
"""Seconds against hangs."""
HASH = ("--model", "embrief/hash", "--dim", "32")


def run(*arguments, given=b""):
    return CliRunner().invoke(app, [str(word) for word in arguments], input=given)


def parsed(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


def vectors(texts, role="document", titles=None):
    embedder = embrief.Embedder("embrief/hash", dim=32)
    return embedder.encode(texts, role=role, titles=titles).vectors


def test_lines_of_text_are_embedded_in_order():
    texts = ["one", "", "  two ", '{"not": "ours"}', "\N{LINE SEPARATOR}three", "one"]
    given = "\n".join(texts).encode()
    done = run("embed", *HASH, "--input", "text", given=given)
    assert done.exit_code == 0, done.output
    found = parsed(done)
    assert [row["index"] for row in found] == list(range(6))
    assert all(row["tokens"] >= 0 for row in found)
    # Nine digits are all that a float32 has.
    assert np.array_equal(np.array([row["embedding"] for row in found], np.float32), vectors(texts))


def test_objects_bring_titles_and_names(monkeypatch):
    given = (
        b'\xef\xbb\xbf{"text": "one", "id": "a", "title": "T"}\r\n\n{"text": "two", "id": 7, "more": 1}\n{"text": ""}'
    )
    refused = run("embed", *HASH, given=given)
    assert refused.exit_code == 1
    assert "no place for a title" in refused.stderr
    encode, titles = embrief.Embedder.encode, []

    def note(self, texts, **options):
        titles.append(options.pop("titles"))
        return encode(self, texts, **options)

    monkeypatch.setattr(embrief.Embedder, "encode", note)
    found = parsed(run("embed", *HASH, given=given))
    assert [(row["index"], row.get("id")) for row in found] == [(0, "a"), (1, 7), (2, None)]
    assert np.array_equal(np.array([row["embedding"] for row in found], np.float32), vectors(["one", "two", ""]))
    assert titles[0] == ["T", None, None]


def test_several_files_and_stdin_are_read_one_after_the_other(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "b.jsonl").write_text('{"text": "three"}\n')
    done = run("embed", *HASH, tmp_path / "a.txt", "-", tmp_path / "b.jsonl", given=b"four\n")
    found = np.array([row["embedding"] for row in parsed(done)], np.float32)
    assert np.array_equal(found, vectors(["one", "two", "four", "three"]))


def test_queries_are_embedded_as_queries_and_documents_as_documents():
    model = ("--model", "embrief/tiny-embedding", "--dim", "64")
    embedder = embrief.Embedder("embrief/tiny-embedding", dim=64)
    query = parsed(run("embed", *model, "--role", "query", "--instruction", "Find planets", given=b"red"))
    document = parsed(run("embed", *model, given=b"red"))
    expected = embedder.embed_query("red", instruction="Find planets")
    assert np.allclose(query[0]["embedding"], expected, atol=1e-5)
    assert np.allclose(document[0]["embedding"], embedder.embed_documents(["red"])[0], atol=1e-5)
    assert not np.allclose(query[0]["embedding"], document[0]["embedding"], atol=1e-3)


def test_numbers_in_json_are_the_same_float32(tmp_path):
    numbers = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    numbers[0] = [1e-38, -0.0, 1, 3.4e38, 1e-45, 0.1, 1 / 3, 16777217]
    for key, width, values in (("embedding", 8, numbers), ("score", None, numbers.ravel())):
        out = tmp_path / f"{key}.jsonl"
        with rows.writer("jsonl", out, key, width) as writer:
            writer.write([rows.Row(items.Item(place, "x"), row) for place, row in enumerate(values)])
        found = [json.loads(line)[key] for line in out.read_text().splitlines()]
        assert np.array_equal(np.array(found, np.float32), values)


def test_blocks_change_nothing():
    given = "\n".join(f"text {number}" for number in range(50)).encode()
    outputs = {run("embed", *HASH, "--batch", batch, given=given).stdout for batch in (1, 7, 50, 1000)}
    assert len(outputs) == 1


@pytest.mark.parametrize("count", [0, 1, 2500])
def test_a_numpy_file_has_a_row_per_line(tmp_path, count):
    texts = [f"text {number}" for number in range(count)]
    out = tmp_path / "v.npy"
    done = run("embed", *HASH, "--format", "npy", "--out", out, given="".join(f"{text}\n" for text in texts).encode())
    assert done.exit_code == 0, done.output
    assert done.stdout == ""
    found = np.load(out)
    assert (found.dtype, found.shape) == (np.float32, (count, 32))
    assert np.array_equal(found, vectors(texts))
    assert np.array_equal(np.load(out, mmap_mode="r") if count else found, found)


def test_a_numpy_file_can_be_read_after_each_block(tmp_path):
    out = tmp_path / "v.npy"
    row = rows.Row(items.Item(0, "x"), np.ones(3, np.float32))
    with rows.writer("npy", out, "embedding", 3) as writer:
        assert np.load(out).shape == (0, 3)
        for count in (2, 5):
            writer.write([row] * (count - len(np.load(out))))
            assert np.load(out).shape == (count, 3)
    # As after the end of a process in the middle of a block.
    with out.open("ab") as file:
        file.write(b"half a row"[:7])
    assert np.load(out).shape == (5, 3)


def test_a_numpy_file_needs_a_file(tmp_path):
    done = run("embed", *HASH, "--format", "npy", given=b"one")
    assert done.exit_code == 1
    assert "give --out FILE" in done.output
    with (tmp_path / "v.npy").open("wb") as file:
        command = [sys.executable, "-m", "embrief", "embed", *HASH, "--format", "npy"]
        subprocess.run(command, input=b"one\n", stdout=file, check=True, timeout=WAIT)
    assert np.load(tmp_path / "v.npy").shape == (1, 32)


BAD = [
    (b'{"text": 3}', "has no 'text' that is a string"),
    (b'{"txt": "a"}', "has no 'text' that is a string"),
    (b'["text"]', "is no JSON object with 'text'"),
    (b'{"text": "secret"', "is no JSON (Expecting ',' delimiter at column 18)"),
    (b'{"text": "a", "title": 1}', "has a 'title' that is no string"),
    (b'{"text": "a", "id": 1.5}', "has an 'id' that is neither a string nor a whole number"),
    (b'{"text": "a", "id": true}', "has an 'id' that is neither a string nor a whole number"),
    (b'{"text": "secret \xff"}', "is not UTF-8 (byte 18 of the line)"),
    (b"[" * 200_000, "is no JSON that can be read"),
    (b'{"text": "secret \\ud800"}', "half a surrogate pair"),
]


@pytest.mark.parametrize(("line", "message"), BAD)
def test_a_line_that_cannot_be_used_stops_and_has_its_number(line, message):
    done = run("embed", *HASH, given=b'{"text": "one"}\n\n' + line + b'\n{"text": "three"}\n')
    assert done.exit_code == 1
    assert done.stderr.startswith("error: stdin:3: ")
    assert message in done.stderr
    assert "secret" not in done.stderr
    # What stands before it is answered.
    assert [row["index"] for row in parsed(done)] == [0]


@pytest.mark.parametrize(("line", "message"), BAD)
def test_or_it_is_skipped_in_its_place(line, message):
    done = run("embed", *HASH, "--on-error", "skip", given=b'{"text": "one"}\n' + line + b'\n{"text": "three"}\n')
    assert done.exit_code == 1
    first, second, third = parsed(done)
    assert set(second) == {"index", "error"}
    assert second["error"].startswith("stdin:2: ")
    assert message in second["error"]
    assert "secret" not in done.output
    assert [first["index"], second["index"], third["index"]] == [0, 1, 2]
    found = np.array([first["embedding"], third["embedding"]], np.float32)
    assert np.array_equal(found, vectors(["one", "three"]))
    assert done.stderr == "1 of 3 lines could not be used\n"


def test_many_bad_texts_in_one_block_are_isolated_each():
    bad = {0, 1, 2, 30, 63, 64, 99}
    given = "".join(
        json.dumps({"text": "\ud800" if number in bad else f"text {number}"}) + "\n" for number in range(100)
    )
    found = parsed(run("embed", *HASH, "--on-error", "skip", "--batch", "33", given=given.encode()))
    assert {row["index"] for row in found if "error" in row} == bad
    # Counted from the first line, not from that of the block.
    assert all(f"stdin:{number + 1}: texts[{number}] " in found[number]["error"] for number in bad)
    assert [row["index"] for row in found] == list(range(100))
    good = [number for number in range(100) if number not in bad]
    assert np.array_equal(
        np.array([found[number]["embedding"] for number in good], np.float32),
        vectors([f"text {number}" for number in good]),
    )


def test_a_model_may_name_a_later_text_first(tmp_path):
    file, out = tmp_path / "a.txt", tmp_path / "out.jsonl"
    file.write_text("good\nbad\ngood\nbad\ngood\n")

    def answer(found):
        bad = [place for place, item in enumerate(found) if item.content == "bad"]
        if bad:
            raise embrief.ItemFailedError(f"index {bad[-1]} failed", index=bad[-1])
        return [rows.Row(item, np.float32(item.index)) for item in found]

    with pytest.raises(typer.Exit):
        Pipe([file], "auto", "jsonl", out, "skip", 1024, Keys("text")).run(answer, "score", None)
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row.get("score") for row in found] == [0, None, 2, None, 4]
    assert found[1]["error"].endswith("a.txt:2: index 1 failed")
    assert found[3]["error"].endswith("a.txt:4: index 3 failed")


def test_a_skipped_line_is_a_row_without_numbers(tmp_path):
    out = tmp_path / "v.npy"
    given = b'{"text": "one"}\n{}\n{"text": "three"}\n'
    done = run("embed", *HASH, "--on-error", "skip", "--format", "npy", "--out", out, given=given)
    assert done.exit_code == 1
    found = np.load(out)
    assert np.isnan(found[1]).all()
    assert np.array_equal(found[[0, 2]], vectors(["one", "three"]))
    assert json.loads(done.stderr.splitlines()[0])["index"] == 1


def test_files_are_checked_before_anything_is_computed_or_written(tmp_path, monkeypatch):
    monkeypatch.setattr(embrief.Embedder, "encode", lambda *_, **__: pytest.fail("computed"))
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n')
    (tmp_path / "b.jsonl").write_text('{"text": "one"}\n{"text": 2}\n')
    out = tmp_path / "out.jsonl"
    out.write_text("kept")
    done = run("embed", *HASH, tmp_path / "a.jsonl", tmp_path / "b.jsonl", "--out", out)
    assert done.exit_code == 1
    assert f"{tmp_path / 'b.jsonl'}:2: has no 'text'" in done.stderr
    assert out.read_text() == "kept"


def test_a_line_without_end_is_not_kept(monkeypatch):
    monkeypatch.setattr(items, "LONGEST", 100)
    given = b"x" * 100 + b"\n" + b"y" * 5000 + b"\nlast\n"
    done = run("embed", *HASH, "--on-error", "skip", given=given)
    assert [row.get("error", "")[:30] for row in parsed(done)] == ["", "stdin:2: is longer than 0 MiB", ""]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["embed", "--role", "judge"], "--role 'judge' is not known; use one of document, query"),
        (["embed", "--truncate", "no"], "--truncate 'no' is not known"),
        (["embed", "--format", "csv"], "--format 'csv' is not known"),
        (["embed", "--input", "csv"], "--input 'csv' is not known"),
        (["embed", "--on-error", "ask"], "--on-error 'ask' is not known"),
        (["embed", "--instruction", "x"], "--instruction is for queries"),
        (["embed", "-", "-"], "stdin (-) is named twice"),
        (["embed", "no-such-file"], "no-such-file: cannot be read (No such file or directory)"),
        (["embed", ".", "--model", "embrief/hash"], ": cannot be read"),
        (["embed", "--out", "no/such/folder", "--model", "embrief/hash"], "--out no/such/folder: cannot be written"),
        (["embed", "--model", "embrief/hash", "--dim", "99999"], "dim=99999 does not fit"),
        (["rerank", "--query", "q", "--truncate", "no"], "--truncate 'no' is not known"),
    ],
)
def test_an_option_that_cannot_be_is_refused(words, message):
    done = run(*words, given=b"one\n")
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stdout == ""


def test_what_is_read_is_not_written_over(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("one\n")
    done = run("embed", *HASH, file, "--out", tmp_path / "." / "a.txt")
    assert done.exit_code == 1
    assert file.read_text() == "one\n"


def test_texts_that_are_cut_are_told_once():
    given = b"short\n" + b"word " * 3000 + b"\n" + b"more " * 3000 + b"\n"
    model = ("--model", "embrief/tiny-embedding", "--dim", "32")
    told = run("embed", *model, "--batch", "1", given=given)
    assert [row.get("truncated") for row in parsed(told)] == [None, True, True]
    assert told.stderr.startswith("warning: 2 texts are longer than ")
    assert told.stderr.count("\n") == 1
    assert run("embed", *model, "--truncate", "silent", given=given).stderr == ""
    refused = run("embed", *model, "--truncate", "error", given=given)
    assert refused.exit_code == 1
    assert "stdin:2: " in refused.stderr
    skipped = parsed(run("embed", *model, "--truncate", "error", "--on-error", "skip", given=given))
    assert [set(row) & {"embedding", "error"} for row in skipped] == [{"embedding"}, {"error"}, {"error"}]


def test_pairs_are_scored_in_order(tmp_path):
    pairs = [("red planet", "Mars"), ("blue planet", "Neptune"), ("red planet", "a recipe for soup")]
    expected = embrief.Reranker("embrief/tiny-reranker").score_pairs(pairs)
    given = "".join(
        json.dumps({"query": query, "document": document, "id": number}) + "\n"
        for number, (query, document) in enumerate(pairs)
    ).encode()
    model = ("--model", "embrief/tiny-reranker")
    found = parsed(run("rerank", *model, given=given))
    assert [(row["index"], row["id"]) for row in found] == [(0, 0), (1, 1), (2, 2)]
    assert np.allclose([row["score"] for row in found], expected, atol=1e-5)
    out = tmp_path / "s.npy"
    assert run("rerank", *model, "--format", "npy", "--out", out, given=given).exit_code == 0
    assert np.load(out).shape == (3,)
    assert np.allclose(np.load(out), expected, atol=1e-5)
    # Two calls: whether the second one finds the prompts of the first computed is a matter of a rounding.
    np.testing.assert_allclose([row["score"] for row in found], np.load(out), atol=1e-6)
    # A query for all, and lines that are documents.
    alone = parsed(run("rerank", *model, "--query", "red planet", given=b"Mars\na recipe for soup\n"))
    assert np.allclose([row["score"] for row in alone], expected[[0, 2]], atol=1e-5)


@pytest.mark.parametrize(
    ("line", "query", "message"),
    [
        (b"Mars", (), "has no query; give --query"),
        (b'{"document": "Mars"}', (), "has no 'query' that is a string; give --query for all"),
        (b'{"document": "Mars", "query": 3}', ("--query", "x"), "has no 'query' that is a string\n"),
        (b'{"document": 3, "query": "x"}', (), "has no 'document' that is a string"),
    ],
)
def test_a_pair_that_is_none_is_refused(line, query, message):
    done = run("rerank", *query, given=line + b"\n")
    assert done.exit_code == 1
    assert message in done.stderr
    assert done.stderr.startswith("error: stdin:1: ")


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process without its parent's is told on Linux only")
def test_many_lines_take_the_memory_of_a_block(tmp_path):
    """Seen by the process itself: ten times as many lines, and not a megabyte more for every ten thousand."""
    script = (
        "import sys; sys.argv[0] = 'embrief'\nfrom embrief.cli import main\ntry: main()\nfinally:\n"
        "    status = open('/proc/self/status').read(); print(status.split('VmHWM:')[1].split()[0], file=sys.stderr)"
    )
    peaks = []
    for count in (8_000, 80_000):
        file = tmp_path / f"{count}.txt"
        file.write_text("".join(f"the {number}th line\n" for number in range(count)))
        with (tmp_path / "out.jsonl").open("wb") as out:
            command = [sys.executable, "-c", script, "embed", *HASH, str(file)]
            done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, timeout=WAIT, check=True)
        peaks.append(int(done.stderr) << 10)
        with (tmp_path / "out.jsonl").open("rb") as written:
            assert sum(1 for _ in written) == count
    # A text and its number take 120 bytes at least: kept, they would be 9 MB.
    assert peaks[1] - peaks[0] < 5 << 20


class Endless(io.RawIOBase):
    """Lines that are made when they are read, and never kept."""

    def __init__(self, count):
        self.left = count

    def readable(self):
        return True

    def readinto(self, buffer):
        self.left -= 1
        line = f"the {self.left}th line of many\n".encode()
        buffer[: len(line)] = line
        return len(line)


def test_a_text_is_what_stands_between_line_ends(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"\xef\xbb\xbfone\r\n two \n\n\xef\xbb\xbfthree\rfour\x0bfive")
    found = [item.content for item in read_items([file], "auto", Keys("text"))]
    assert found == ["one", " two ", "", "\ufeffthree\rfour\x0bfive"]


def test_reading_goes_no_further_than_what_is_asked_for(monkeypatch):
    read = Endless(1000)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(read, 64)))
    found = read_items([items.STDIN], "text", Keys("text"))
    assert next(found).content == "the 999th line of many"
    assert read.left > 990


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no device that is always full")
def test_a_full_disk_is_told():
    done = run("embed", *HASH, "--out", "/dev/full", given=b"one")
    assert done.exit_code == 1
    assert done.stderr == "error: /dev/full: cannot be written (No space left on device)\n"


def start(*words, unbuffered=False):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen(
        [sys.executable, "-m", "embrief", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # In the background of a shell the tests themselves may be deaf to it.
        preexec_fn=None if sys.platform == "win32" else lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        env={**environment, "PYTHONUNBUFFERED": "1"} if unbuffered else environment,
    )


def test_an_answer_comes_as_soon_as_its_block_is_full():
    with start("embed", *HASH, "--batch", "2") as process:
        process.stdin.write(b"one\ntwo\n")
        process.stdin.flush()
        assert [json.loads(process.stdout.readline())["index"] for _ in range(2)] == [0, 1]
        process.stdin.close()
        assert process.wait(WAIT) == 0


def test_a_reader_that_goes_ends_it_quietly(tmp_path):
    file = tmp_path / "many.txt"
    file.write_text("a line\n" * 20_000)
    with start("embed", *HASH, str(file)) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(WAIT) == 141
        assert process.stderr.read() == b""


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be sent Ctrl-C alone there")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("format", ["jsonl", "npy"])
def test_what_is_interrupted_leaves_whole_lines(tmp_path, number, code, format):
    out = tmp_path / f"out.{format}"
    with start("embed", *HASH, "--batch", "100", "--format", format, "--out", str(out)) as process:
        process.stdin.write(b"a line\n" * 250)
        process.stdin.flush()
        while not out.exists() or out.stat().st_size < 200 * 32 * 4:
            assert process.poll() is None
        os.kill(process.pid, number)
        assert process.wait(WAIT) == code
        assert process.stderr.read() == b""
    if format == "npy":
        assert len(np.load(out)) == 200
    else:
        assert [json.loads(line)["index"] for line in out.read_text().splitlines()] == list(range(200))


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be sent Ctrl-C alone there")
@pytest.mark.parametrize("unbuffered", [False, True])
def test_a_signal_in_the_middle_of_a_write_leaves_whole_lines(tmp_path, unbuffered):
    """A block that is larger than what a pipe holds, and nobody reads it when the signal comes."""
    file = tmp_path / "many.txt"
    file.write_text("a line\n" * 5000)
    with start("embed", *HASH, str(file), "--batch", "5000", unbuffered=unbuffered) as process:
        first = process.stdout.readline()
        os.kill(process.pid, signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(WAIT) == 130
    assert [json.loads(line)["index"] for line in (first + rest).splitlines()] == list(range(5000))


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent by number")
def test_a_signal_waits_until_a_block_is_written():
    done = []
    # The tests may run in the background of a shell, where Ctrl-C is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt), rows.whole():  # noqa: PT012 - the block is what is tested
        os.kill(os.getpid(), signal.SIGINT)
        done.append("written")
    assert done == ["written"]
    with pytest.raises(SystemExit, match="143"), rows.whole():  # noqa: PT012 - as above
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("written")
    assert len(done) == 2
    with pytest.raises(KeyboardInterrupt), rows.whole():  # noqa: PT012 - as above
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        done.append("too late")
    assert len(done) == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with rows.whole():
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.signal(signal.SIGINT, before) is signal.SIG_IGN


def test_the_model_is_the_one_that_the_environment_names(monkeypatch):
    monkeypatch.setenv("EMBRIEF_DEFAULT_EMBEDDING_MODEL", "embrief/hash")
    assert np.array_equal(
        np.array(parsed(run("embed", "--dim", "32", given=b"one"))[0]["embedding"], np.float32), vectors(["one"])[0]
    )
    monkeypatch.setenv("EMBRIEF_RERANKER_MODEL", "no/such-model")
    assert "no/such-model" in run("rerank", "--query", "q", "--truncate", "silent", given=b"one").stderr
