"""`embrief demo`, end to end."""

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from embrief import Embedder
from embrief.cli import app
from embrief.cli.demo import LEXICAL_MISS, QUESTIONS
from embrief.system.installed import install_command
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


# As if it were not installed.
HIDE = "import sys; sys.modules[{!r}] = None\n"


def run(*arguments):
    return CliRunner().invoke(app, ["demo", *arguments], env={"COLUMNS": "100"})


def run_lexical(*arguments):
    """Run with the model that is fastest."""
    return run("--model", "embrief/hash", *arguments)


def process(*arguments, hidden=(), **env):
    clean = {
        name: value for name, value in os.environ.items() if name not in ("COLUMNS", "HF_HUB_OFFLINE", "FORCE_COLOR")
    }
    return subprocess.run(
        [sys.executable, "-c", "".join(map(HIDE.format, hidden)) + NO_NETWORK, *arguments],
        capture_output=True, encoding="utf-8", env={**clean, "PYTHONUTF8": "1", **env}, timeout=600,
    )  # fmt: skip


def in_a_fresh_home(tmp_path_factory, **options):
    home = str(tmp_path_factory.mktemp("home"))
    arguments = ("demo", "--limit", "601", "--ask", "copy a directory tree")
    return process(*arguments, HOME=home, USERPROFILE=home, **options)


@pytest.fixture(scope="module")
def piped(tmp_path_factory):
    """A run in a fresh home, without network, into a pipe."""
    return in_a_fresh_home(tmp_path_factory)


@pytest.fixture(scope="module")
def without_torch(tmp_path_factory):
    """The same where torch is not installed."""
    return in_a_fresh_home(tmp_path_factory, hidden=["torch"])


def answers(output, question):
    """Return (score, name, ...) of each row below a question."""
    lines = output.partition(question + "\n")[2].splitlines()[2:]
    block = lines[: lines.index("")] if "" in lines else lines
    return [line.split() for line in block if line[:1].isdigit() or line[:1] == "-"]


def test_it_answers_without_network(piped):
    assert piped.returncode == 0, piped.stderr
    assert "601 docstrings" in piped.stdout
    assert "texts/s" in piped.stdout
    assert "Model     embrief/tiny-embedding, 256 values per vector" in piped.stdout
    assert "Reranker  embrief/tiny-reranker, on the best 20 of each question" in piped.stdout
    for question in (*QUESTIONS, "copy a directory tree"):
        reranked = [float(row[1]) for row in answers(piped.stdout, question)]
        assert len(reranked) == 3
        assert reranked == sorted(reranked, reverse=True)
        assert all(0 <= score <= 1 for score in reranked)
    assert "score   rerank   name" in piped.stdout


def test_it_says_that_the_tiny_models_are_for_trying_out(piped):
    assert "The tiny models are for trying out." in piped.stdout
    # In one line, also on a narrow terminal: it must survive being copied.
    assert HINT in piped.stdout
    assert "lexical only" not in piped.stdout
    assert "can take long" not in piped.stdout


def test_without_torch_it_answers_with_the_lexical_model(without_torch):
    assert without_torch.returncode == 0, without_torch.stderr
    text = without_torch.stdout
    assert "Model     embrief/hash" in text
    assert answers(text, QUESTIONS[0])[0][1] == "str.strip"
    assert answers(text, QUESTIONS[1])[0][1] == "heapq.nlargest"
    # Which of tempfile's functions comes first depends on the interpreter's docstrings.
    assert answers(text, QUESTIONS[2])[0][1].startswith("tempfile.")
    assert answers(text, "copy a directory tree")
    assert "score   rerank" not in text
    assert "can take long" not in text


def test_without_torch_it_says_so_and_how_to_do_better(without_torch):
    head = without_torch.stdout.partition("score")[0]
    assert "lexical only" in head
    assert f"          for meaning: {install_command('demo')} (missing: torch)" in head.splitlines()
    assert LEXICAL_MISS in without_torch.stdout
    assert install_command("demo,torch") in without_torch.stdout
    assert HINT in without_torch.stdout


def test_a_model_that_was_asked_for_needs_no_remedy():
    result = run_lexical("--limit", "5")
    assert result.exit_code == 0, result.output
    assert "lexical only" in result.output
    assert "for meaning" not in result.output


def test_the_reranker_of_the_default_model_can_be_left_out():
    result = run("--limit", "5", "--reranker", "none")
    assert result.exit_code == 0, result.output
    assert "embrief/tiny-embedding" in result.output
    assert "score   rerank" not in result.output
    assert "embrief/tiny-reranker" not in result.output


def test_a_model_that_was_asked_for_brings_no_reranker():
    result = run("--limit", "5", "--model", "embrief/tiny-embedding")
    assert result.exit_code == 0, result.output
    assert "embrief/tiny-reranker" not in result.output
    assert "The tiny models are for trying out." in result.output
    assert run_lexical("--limit", "5", "--reranker", "none").exit_code == 0


def test_another_reranker_works_with_the_default_model():
    with FakeRuntime() as fake:
        result = run("--limit", "5", "--reranker", fake.reranker)
        assert result.exit_code == 0, result.output
        assert len(fake.pairs) == 5 * len(QUESTIONS)
    assert "embrief/tiny-embedding" in result.output


@pytest.mark.parametrize("output", ["piped", "without_torch"])
def test_a_pipe_gets_no_control_characters(output, request):
    done = request.getfixturevalue(output)
    text = done.stdout + done.stderr
    assert not [character for character in text if not character.isprintable() and character != "\n"]
    assert not [line for line in done.stdout.splitlines() if line != line.rstrip()]


@pytest.mark.parametrize("output", ["piped", "without_torch"])
def test_lines_fit_80_columns_but_for_the_command(output, request):
    done = request.getfixturevalue(output)
    assert {line for line in done.stdout.splitlines() if len(line) > 80} <= {
        f"  {HINT}",
        "To search by meaning, with Qwen3 embedding and reranking (downloads 2.4 GB once):",
    }


def test_a_large_model_warns_that_it_takes_long():
    with FakeRuntime() as fake:
        for limit, warned in (("600", False), ("601", True)):
            result = run("--limit", limit, "--model", fake.qwen3)
            assert result.exit_code == 0, result.output
            assert ("this can take long without a GPU" in result.output) == warned


def test_pieces_suit_the_model(monkeypatch):
    encode = Embedder.encode
    pieces = []

    def noted(self, texts, **options):
        pieces.append(len(texts))
        return encode(self, texts, **options)

    monkeypatch.setattr(Embedder, "encode", noted)
    with FakeRuntime() as fake:
        for model, expected in (
            ("embrief/hash", [300]),
            ("embrief/tiny-embedding", [256, 44]),
            (fake.qwen3, [64, 64, 64, 64, 44]),
        ):
            pieces.clear()
            result = run("--limit", "300", "--model", model)
            assert result.exit_code == 0, result.output
            assert [piece for piece in pieces if piece > 1] == expected


@pytest.mark.parametrize("columns", ["1", "12", "40", "400", "nonsense"])
def test_any_terminal_width_works(columns):
    result = CliRunner().invoke(
        app, ["demo", "--model", "embrief/hash", "--limit", "30", "--top", "1"], env={"COLUMNS": columns}
    )
    assert result.exit_code == 0, result.output
    assert "lexical only" in result.output


def test_an_encoding_without_the_characters_is_no_crash():
    result = process("demo", "--model", "embrief/hash", "--limit", "60", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr
    assert "score" in result.stdout


def test_own_questions_and_top(tmp_path):
    result = run_lexical(
        "--limit", "120", "--ask", "compress bytes with gzip", "--ask", "[bold]brackets[/] :smile:", "--top", "2"
    )
    assert result.exit_code == 0, result.output
    assert len(answers(result.output, "compress bytes with gzip")) == 2
    assert answers(result.output, "compress bytes with gzip")[0][1].startswith("gzip.")
    # Neither markup nor emoji: the text is shown as it is.
    assert "[bold]brackets[/] :smile:" in result.output


def test_more_answers_than_docstrings():
    result = run_lexical("--limit", "3", "--top", "50")
    assert result.exit_code == 0, result.output
    assert len(answers(result.output, QUESTIONS[0])) == 3


def test_a_folder_is_used_again(tmp_path):
    first = run_lexical("--limit", "50", "--folder", str(tmp_path / "new" / "place"))
    again = run_lexical("--limit", "50", "--folder", str(tmp_path / "new" / "place"))
    assert "Embedded  50 in" in first.output
    assert "nothing: all 50 are stored from an earlier run" in again.output
    assert answers(first.output, QUESTIONS[1]) == answers(again.output, QUESTIONS[1])


def test_another_process_uses_the_folder_again(tmp_path):
    folder = str(tmp_path / "kept")
    first, again = (process("demo", "--model", "embrief/hash", "--limit", "40", "--folder", folder) for _ in range(2))
    assert "Embedded  40 in" in first.stdout
    assert "nothing: all 40" in again.stdout


def test_another_corpus_is_embedded_beside_the_first(tmp_path):
    run_lexical("--limit", "50", "--folder", str(tmp_path))
    other = run_lexical("--limit", "40", "--folder", str(tmp_path))
    assert "Embedded  40 in" in other.output
    assert "nothing: all 50" in run_lexical("--limit", "50", "--folder", str(tmp_path)).output


def test_another_space_is_refused(tmp_path):
    run_lexical("--limit", "50", "--folder", str(tmp_path))
    refused = run_lexical("--limit", "50", "--folder", str(tmp_path), "--dim", "64")
    assert refused.exit_code == 1
    assert "stored: dim=1024, this embedder: dim=64" in " ".join(refused.output.split())
    assert "another folder" in refused.output
    # Also for another corpus: one folder, one space.
    assert run_lexical("--limit", "40", "--folder", str(tmp_path), "--dim", "64").exit_code == 1
    assert "nothing: all 50" in run_lexical("--limit", "50", "--folder", str(tmp_path)).output


@pytest.mark.parametrize("metadata", [None, {"embrief_space": ""}])
def test_vectors_of_an_unknown_space_are_refused(metadata, tmp_path):
    import chromadb

    client = chromadb.PersistentClient(str(tmp_path), chromadb.Settings(anonymized_telemetry=False))
    unknown = client.create_collection("embrief-demo-x", metadata=metadata, embedding_function=None)
    unknown.add(ids=["a"], embeddings=[[0.1] * 1024])
    refused = run_lexical("--limit", "5", "--folder", str(tmp_path))
    assert refused.exit_code == 1
    said = " ".join(refused.output.split())
    assert "nothing says which model made them" in said or "cannot be read" in said
    assert unknown.count() == 1


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path):
    def stop(texts):
        if len(fake.texts) > 100:
            raise RuntimeError("power cut")

    with FakeRuntime() as fake:
        fake.fault = stop
        cut = run("--limit", "200", "--folder", str(tmp_path), "--model", fake.qwen3)
        assert cut.exit_code == 1
        assert "power cut" in cut.output
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
    from embrief.evaluation.corpus import read_corpus

    entries = read_corpus(100)
    embedder = Embedder("embrief/hash")
    scores = embedder.embed_documents([entry.text for entry in entries]) @ embedder.embed_query("split a path")
    best = int(scores.argmax())
    score, name, *_ = answers(run_lexical("--limit", "100", "--ask", "split a path").output, "split a path")[0]
    assert name == entries[best].name
    assert float(score) == pytest.approx(float(scores[best]), abs=2e-3)


def test_docstrings_that_lose_their_end_are_counted(monkeypatch):
    with FakeRuntime() as fake:
        from embrief.runtimes.hashing import HashBackend

        original = HashBackend.run

        def cutting(self, texts, options):
            result = original(self, texts, options)
            result.truncated[:3] = True
            return result

        monkeypatch.setattr(HashBackend, "run", cutting)
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
        (["--instruction", "Find a function", "--model", "embrief/hash"], "instruction"),
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
    result = run_lexical("--limit", "5", "--folder", str(tmp_path / "file"))
    assert result.exit_code == 1
    assert "is a file" in result.output


def test_a_broken_database_is_one_message(tmp_path):
    (tmp_path / "chroma.sqlite3").write_bytes(b"no database at all" * 100)
    result = run_lexical("--limit", "5", "--folder", str(tmp_path))
    assert result.exit_code == 1
    assert "cannot be opened as a Chroma database" in result.output


def test_without_chroma_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "chromadb", None)
    result = run_lexical("--limit", "5")
    assert result.exit_code == 1
    assert install_command("demo") in result.output
