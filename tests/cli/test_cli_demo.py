"""`embrief demo`, end to end."""

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from embrief.cli import app
from embrief.cli.demo import LEXICAL_MISS, QUESTIONS
from embrief.testing import FakeRuntime

pytest.importorskip("chromadb")

HINT = "embrief demo --model Qwen/Qwen3-Embedding-0.6B --reranker Qwen/Qwen3-Reranker-0.6B"

# Anything sent to anywhere is an error; so is a look-up of a name. Making a socket is not: older releases of urllib3,
# which chromadb brings, bind one at import to see whether the machine has IPv6.
NO_NETWORK = """
import socket, sys
class Blocked(socket.socket):
    def _refuse(self, *_, **__):
        print("SOCKET USED", file=sys.stderr); sys.exit(99)
    connect = connect_ex = send = sendall = sendto = sendmsg = listen = _refuse
def refuse(*_, **__):
    print("NAME LOOKED UP", file=sys.stderr); sys.exit(99)
socket.socket, socket.getaddrinfo, socket.create_connection = Blocked, refuse, refuse
from embrief.cli import main
sys.argv = ["embrief", *sys.argv[1:]]
main()
"""


def run(*arguments):
    return CliRunner().invoke(app, ["demo", *arguments], env={"COLUMNS": "100"})


def process(*arguments, **env):
    clean = {
        name: value for name, value in os.environ.items() if name not in ("COLUMNS", "HF_HUB_OFFLINE", "FORCE_COLOR")
    }
    return subprocess.run(
        [sys.executable, "-c", NO_NETWORK, *arguments],
        capture_output=True, encoding="utf-8", env={**clean, "PYTHONUTF8": "1", **env}, timeout=120,
    )  # fmt: skip


@pytest.fixture(scope="module")
def piped(tmp_path_factory):
    """A run in a fresh home, without network, into a pipe."""
    home = str(tmp_path_factory.mktemp("home"))
    return process("demo", "--limit", "600", "--ask", "copy a directory tree", HOME=home, USERPROFILE=home)


def answers(output, question):
    """Return (score, name, ...) of each row below a question."""
    lines = output.partition(question + "\n")[2].splitlines()[2:]
    block = lines[: lines.index("")] if "" in lines else lines
    return [line.split() for line in block if line[:1].isdigit() or line[:1] == "-"]


def test_it_answers_without_network(piped):
    assert piped.returncode == 0, piped.stderr
    assert "600 docstrings" in piped.stdout
    assert "texts/s" in piped.stdout
    assert answers(piped.stdout, QUESTIONS[0])[0][1] == "str.strip"
    assert answers(piped.stdout, QUESTIONS[1])[0][1] == "heapq.nlargest"
    # Which of tempfile's functions comes first depends on the interpreter's docstrings.
    assert answers(piped.stdout, QUESTIONS[2])[0][1].startswith("tempfile.")
    assert answers(piped.stdout, "copy a directory tree")
    assert "first line" in piped.stdout


def test_it_says_that_it_is_lexical_and_how_to_do_better(piped):
    assert "lexical only" in piped.stdout.partition("score")[0]
    assert "rerank " not in piped.stdout
    assert LEXICAL_MISS in piped.stdout
    assert 'pip install "embrief[demo,torch]"' in piped.stdout
    # In one line, also on a narrow terminal: it must survive being copied.
    assert HINT in piped.stdout


def test_a_pipe_gets_no_control_characters(piped):
    text = piped.stdout + piped.stderr
    assert not [character for character in text if not character.isprintable() and character != "\n"]
    assert not [line for line in piped.stdout.splitlines() if line != line.rstrip()]


def test_lines_fit_80_columns_but_for_the_command(piped):
    assert {line for line in piped.stdout.splitlines() if len(line) > 80} <= {
        f"  {HINT}",
        "To search by meaning, with Qwen3 embedding and reranking (downloads 2.4 GB once):",
    }


@pytest.mark.parametrize("columns", ["1", "12", "40", "400", "nonsense"])
def test_any_terminal_width_works(columns):
    result = CliRunner().invoke(app, ["demo", "--limit", "30", "--top", "1"], env={"COLUMNS": columns})
    assert result.exit_code == 0, result.output
    assert "lexical only" in result.output


def test_an_encoding_without_the_characters_is_no_crash():
    result = process("demo", "--limit", "60", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr
    assert "score" in result.stdout


def test_own_questions_and_top(tmp_path):
    result = run(
        "--limit", "120", "--ask", "compress bytes with gzip", "--ask", "[bold]brackets[/] :smile:", "--top", "2"
    )
    assert result.exit_code == 0, result.output
    assert len(answers(result.output, "compress bytes with gzip")) == 2
    assert answers(result.output, "compress bytes with gzip")[0][1].startswith("gzip.")
    # Neither markup nor emoji: the text is shown as it is.
    assert "[bold]brackets[/] :smile:" in result.output


def test_more_answers_than_docstrings():
    result = run("--limit", "3", "--top", "50")
    assert result.exit_code == 0, result.output
    assert len(answers(result.output, QUESTIONS[0])) == 3


def test_a_folder_is_used_again(tmp_path):
    first = run("--limit", "50", "--folder", str(tmp_path / "new" / "place"))
    again = run("--limit", "50", "--folder", str(tmp_path / "new" / "place"))
    assert "Embedded  50 in" in first.output
    assert "nothing: all 50 are stored from an earlier run" in again.output
    assert answers(first.output, QUESTIONS[1]) == answers(again.output, QUESTIONS[1])


def test_another_process_uses_the_folder_again(tmp_path):
    folder = str(tmp_path / "kept")
    first, again = (process("demo", "--limit", "40", "--folder", folder) for _ in range(2))
    assert "Embedded  40 in" in first.stdout
    assert "nothing: all 40" in again.stdout


def test_another_corpus_is_embedded_beside_the_first(tmp_path):
    run("--limit", "50", "--folder", str(tmp_path))
    other = run("--limit", "40", "--folder", str(tmp_path))
    assert "Embedded  40 in" in other.output
    assert "nothing: all 50" in run("--limit", "50", "--folder", str(tmp_path)).output


def test_another_space_is_refused(tmp_path):
    run("--limit", "50", "--folder", str(tmp_path))
    refused = run("--limit", "50", "--folder", str(tmp_path), "--dim", "64")
    assert refused.exit_code == 1
    assert "dim: 1024 is not 64" in refused.output
    assert "another folder" in refused.output
    # Also for another corpus: one folder, one space.
    assert run("--limit", "40", "--folder", str(tmp_path), "--dim", "64").exit_code == 1
    assert "nothing: all 50" in run("--limit", "50", "--folder", str(tmp_path)).output


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path):
    def stop(texts):
        if len(fake.texts) > 100:
            raise RuntimeError("power cut")

    with FakeRuntime() as fake:
        fake.fault = stop
        cut = run("--limit", "200", "--folder", str(tmp_path), "--model", fake.qwen3)
        assert isinstance(cut.exception, RuntimeError)
        fake.fault = None
        fake.texts.clear()
        after = run("--limit", "200", "--folder", str(tmp_path), "--model", fake.qwen3)
        assert after.exit_code == 0, after.output
        assert "128 were stored already" in after.output
        assert sum(not text.startswith("Instruct:") for text in fake.texts) == 72


def test_a_reranker_adds_its_column_and_sorts():
    with FakeRuntime() as fake:
        result = run(
            "--limit", "150", "--model", fake.qwen3, "--reranker", fake.reranker, "--dim", "32",
            "--ask", "random numbers", "--instruction", "Find a function", "--top", "4",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        # Five questions, the best 20 each.
        assert fake.runs[-1] == 20
        assert len(fake.pairs) == 20 * (len(QUESTIONS) + 1)
        assert all("<Instruct>: Find a function\n" in pair.head for pair in fake.pairs)
        assert sum(text.startswith("Instruct: Find a function\nQuery:") for text in fake.texts) == len(QUESTIONS) + 1
    rows = answers(result.output, "random numbers")
    assert len(rows) == 4
    reranked = [float(row[1]) for row in rows]
    assert reranked == sorted(reranked, reverse=True)
    assert all(0 <= score <= 1 for score in reranked)
    assert "32 values per vector" in result.output
    assert "lexical" not in result.output
    assert HINT not in result.output


def test_the_answers_are_those_of_the_vectors():
    from embrief import Embedder
    from embrief.demo.corpus import read_corpus

    entries = read_corpus(100)
    embedder = Embedder("embrief/hash")
    scores = embedder.embed_documents([entry.text for entry in entries]) @ embedder.embed_query("split a path")
    best = int(scores.argmax())
    score, name, *_ = answers(run("--limit", "100", "--ask", "split a path").output, "split a path")[0]
    assert name == entries[best].name
    assert float(score) == pytest.approx(float(scores[best]), abs=2e-3)


def test_docstrings_that_lose_their_end_are_counted(monkeypatch):
    with FakeRuntime() as fake:
        from embrief.backends.hashing import HashBackend

        encode = HashBackend.encode

        def cutting(self, texts, options):
            result = encode(self, texts, options)
            result.truncated[:3] = True
            return result

        monkeypatch.setattr(HashBackend, "encode", cutting)
        result = run("--limit", "10", "--model", fake.qwen3)
    assert "3 are longer than 8192 tokens and lost their end" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ask", "  "], "--ask is empty"),
        (["--model", "Qwen/Qwen3-Embedding"], "needs a size"),
        (["--reranker", "Qwen/Qwen3-Embedding-0.6B"], "use Embedder"),
        (["--dim", "3"], "dim=3"),
        (["--device", "tpu"], "device='tpu'"),
        (["--instruction", "Find a function"], "instruction"),
    ],
)
def test_a_mistake_is_one_message(arguments, message):
    result = run("--limit", "5", *arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert result.output.count("error: ") == 1
    assert "Traceback" not in result.output


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    result = run("--limit", "5", "--folder", str(tmp_path / "file"))
    assert result.exit_code == 1
    assert "is a file" in result.output


def test_a_broken_database_is_one_message(tmp_path):
    (tmp_path / "chroma.sqlite3").write_bytes(b"no database at all" * 100)
    result = run("--limit", "5", "--folder", str(tmp_path))
    assert result.exit_code == 1
    assert "cannot be opened as a Chroma database" in result.output


def test_without_chroma_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "chromadb", None)
    result = run("--limit", "5")
    assert result.exit_code == 1
    assert 'pip install "embrief[demo]"' in result.output
