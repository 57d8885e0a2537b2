"""Which files are read: git's own answer is the oracle for what is ignored."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from embrief.errors import ArgumentError
from embrief.indexing.kinds import TEXT_LIMIT
from embrief.indexing.walking import walk

GIT = shutil.which("git")
needs_git = pytest.mark.skipif(GIT is None, reason="git is the oracle, and is not installed")
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")

NAMES = ["a", "b", "foo", "bar", "x.py", "y.txt", "a.b", "foo.py", "[c]", "b c", "#h", "!n", "doc", "é"]
PARTS = [
    "a", "b", "foo", "bar", "*", "*.py", "*.txt", "?", "x.*", "**", "[ab]", "[!a]", "[^b]", "fo*", "\\#h", "\\!n",
    "b\\ c", "a.b", "doc", "f?o", "[a-f]*", "é", "[[:alpha:]]", "[[:digit:]a]", "**.py", "a**", "[]a]", "[a-]",
    "\\a", "b\\*", "\\",
]  # fmt: skip


def write(root: Path, **files: str) -> Path:
    """Write files; `__` in a name is a slash, and `_dot_` a dot."""
    for name, text in files.items():
        put(root / name.replace("__", "/").replace("_dot_", "."), text)
    return root


def put(path: Path, data: str | bytes = "text\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def names(*roots: Path, **options: object) -> list[str]:
    return [file.name for file in walk(roots, **options).files]


def git(root: Path, *arguments: str) -> str:
    # Nobody's own configuration, which may ignore more.
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run([GIT or "git", "-C", str(root), *arguments], capture_output=True, check=True, env=environment)
    return done.stdout.decode()


def listed(root: Path) -> list[str]:
    found = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    return sorted(name for name in found if name and not name.endswith(".gitignore"))


def a_pattern(rng: random.Random) -> str:
    pattern = "/".join(rng.choice(PARTS) for _ in range(rng.choice([1, 1, 1, 2, 2, 3])))
    pattern = f"/{pattern}" if rng.random() < 0.25 else pattern
    pattern = f"{pattern}/" if rng.random() < 0.25 else pattern
    pattern = f"!{pattern}" if rng.random() < 0.3 else pattern
    return pattern + rng.choice([""] * 18 + ["  ", "\r"])


def a_tree(rng: random.Random, folder: Path, depth: int = 0) -> None:
    for name in rng.sample(NAMES, rng.randint(2, 5)):
        if depth < 3 and rng.random() < 0.45:
            (folder / name).mkdir()
            a_tree(rng, folder / name, depth + 1)
        else:
            put(folder / name)
    if not depth or rng.random() < 0.35:
        put(folder / ".gitignore", "\n".join(a_pattern(rng) for _ in range(rng.randint(1, 5))))


@needs_git
@posix
@pytest.mark.parametrize("seed", range(40))
def test_ignored_is_what_git_ignores(tmp_path, seed):
    rng = random.Random(seed)
    git(tmp_path, "init", "-q")
    a_tree(rng, tmp_path)
    put(tmp_path / ".git" / "info" / "exclude", a_pattern(rng))
    expected = listed(tmp_path)
    assert sorted(names(tmp_path)) == expected
    # From inside, the files above still count.
    for folder in tmp_path.iterdir():
        inside = [name.removeprefix(f"{folder.name}/") for name in expected if name.startswith(f"{folder.name}/")]
        if folder.is_dir() and inside:
            assert sorted(names(folder)) == inside


@needs_git
def test_this_project_is_what_git_lists():
    project = Path(__file__).parents[2]
    if not (project / ".git").exists():
        pytest.skip("not a checkout")
    found = walk([project])
    kept = {
        name
        for name in git(project, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
        if name
    }
    assert {file.name for file in found.files} <= kept
    assert "core/embrief/indexing/walking.py" in {file.name for file in found.files}
    assert len(found.files) > 300


def test_a_working_tree_beside_the_repository_has_its_exclude_file(tmp_path):
    put(tmp_path / "main/.git/info/exclude", "secret.txt")
    put(tmp_path / "main/.git/worktrees/tree/commondir", "../..\n")
    put(tmp_path / "tree/.git", f"gitdir: {tmp_path / 'main/.git/worktrees/tree'}\n")
    write(tmp_path / "tree", secret_dot_txt="x", seen_dot_txt="x")
    assert names(tmp_path / "tree") == ["seen.txt"]


def test_a_repository_inside_another_has_its_own_patterns_only(tmp_path):
    write(
        tmp_path,
        _dot_gitignore="*.txt",
        a_dot_txt="x",
        sub__a_dot_txt="x",
        sub___dot_gitignore="*.md",
        sub__b_dot_md="x",
    )
    assert names(tmp_path) == []
    (tmp_path / ".git").mkdir()
    (tmp_path / "sub" / ".git").mkdir()
    assert names(tmp_path) == ["sub/a.txt"]


def test_what_was_left_out_is_counted(tmp_path):
    put(tmp_path / ".gitignore", "ignored.txt\nbuild/\n")
    write(tmp_path, ignored_dot_txt="x", build__a_dot_txt="x", build__b_dot_txt="x", node_modules__m_dot_js="x")
    write(tmp_path, env__pyvenv_dot_cfg="x", env__m_dot_py="x", __pycache____m_dot_py="x", kept_dot_txt="x")
    put(tmp_path / "cache/CACHEDIR.TAG")
    put(tmp_path / "__pycache__/m.py")
    put(tmp_path / "a.bin", b"abc\0def")
    put(tmp_path / "large.txt", b"x" * (TEXT_LIMIT + 1))
    put(tmp_path / "empty.txt", "")
    put(tmp_path / "excluded.txt")
    put(tmp_path / "russian.txt", "Привет, мир".encode("koi8-r"))
    put(tmp_path / "a.svg", "<svg/>")
    found = walk([tmp_path], exclude=["excluded.*"])
    assert [file.name for file in found.files] == ["kept.txt"]
    assert found.left_out == {
        "ignored": 2, "hidden": 1, "installed packages": 2, "cache": 2, "binary": 1, "too large": 1, "empty": 1,
        "excluded": 1, "not text": 1, "picture": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", "# @generated by a tool\nx = 1\n"),
        ("a.go", "package a\n\n// Code generated by stringer. DO NOT EDIT.\n"),
        ("a.pyi", "# Generated by scripts/stubs.py; do not edit.\n"),
        ("a.js", "var a = 1;" * 2_000),
        ("a.min.js", "x"),
        ("a.min.css", "x"),
        ("package-lock.json", "{}"),
        ("a_pb2.py", "x = 1"),
    ],
)
def test_what_a_program_wrote_is_left_out(tmp_path, name, text):
    put(tmp_path / name, text)
    assert walk([tmp_path]).left_out == {"generated": 1}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", 'MARK = "@generated"  # DO NOT EDIT is what others write\n'),
        ("a.md", "# How to write @generated\n\nDO NOT EDIT\n"),
        ("a.py", "x = 1\n" * 20 + "# @generated\n"),
        ("a.txt", "A paragraph in one line. " * 2_000),
        ("utf16.txt", "Text".encode("utf-16")),
        ("latin.txt", "Schöne Grüße aus Köln".encode("latin-1")),
        ("cut.md", "a" + "é" * 65_537),  # a character over the end of what is looked at
        ("a.pdf", b"%PDF-1.4\0"),
    ],
)
def test_what_people_wrote_is_taken(tmp_path, name, text):
    put(tmp_path / name, text)
    assert names(tmp_path) == [name]


def test_include_and_exclude_are_patterns_relative_to_the_folder(tmp_path):
    write(tmp_path, a_dot_md="x", b_dot_py="x", docs__c_dot_md="x", docs__d_dot_py="x", old__docs__e_dot_md="x")
    assert names(tmp_path, include=["*.md"]) == ["a.md", "docs/c.md", "old/docs/e.md"]
    assert names(tmp_path, include=["/docs/"]) == ["docs/c.md", "docs/d.py"]
    assert names(tmp_path, include=["docs", "!*.py"]) == ["docs/c.md", "old/docs/e.md"]
    assert names(tmp_path, exclude=["docs/"]) == ["a.md", "b.py"]
    assert names(tmp_path, include=["*.md"], exclude=["old"]) == ["a.md", "docs/c.md"]
    assert walk([tmp_path], include=["*.md"]).left_out == {"not included": 2}
    with pytest.raises(ArgumentError, match=r"exclude='# all' is no pattern"):
        walk([tmp_path], exclude=["# all"])


def test_the_limit_counts_files_that_are_taken(tmp_path):
    write(tmp_path, a_dot_bin="\0", b_dot_txt="x", c_dot_txt="x", d_dot_txt="x")
    found = walk([tmp_path], limit=2)
    assert [file.name for file in found.files] == ["b.txt", "c.txt"]
    assert found.left_out == {"binary": 1, "over the limit": 1}
    assert names(tmp_path, limit=0) == []
    with pytest.raises(ArgumentError, match="limit=-1"):
        walk([tmp_path], limit=-1)


def test_several_roots_have_names_of_their_own(tmp_path):
    write(tmp_path, a__docs__x_dot_md="x", b__docs__x_dot_md="x", c__y_dot_md="x")
    assert names(tmp_path / "a", tmp_path / "c") == ["a/docs/x.md", "c/y.md"]
    found = walk([tmp_path / "a/docs", tmp_path / "b/docs", tmp_path / "c/y.md"])
    assert [file.name for file in found.files] == ["a/docs/x.md", "b/docs/x.md", "c/y.md"]
    assert found.prefixes == ["a/docs/", "b/docs/", "c/y.md"]
    assert found.roots == [(tmp_path / name).resolve() for name in ("a/docs", "b/docs", "c/y.md")]


def test_a_file_is_taken_once(tmp_path):
    write(tmp_path, a__x_dot_md="x", a__y_dot_md="x")
    found = walk([tmp_path / "a", tmp_path / "a", tmp_path / "a" / "x.md", tmp_path / "a" / ".." / "a"])
    assert [file.name for file in found.files] == ["a/x.md", "a/y.md"]


def test_a_path_that_is_given_may_be_hidden_or_ignored(tmp_path):
    (tmp_path / ".git").mkdir()
    write(tmp_path, _dot_gitignore="build\n*.log", build__a_dot_txt="x", _dot_hid__b_dot_txt="x", c_dot_log="x")
    assert names(tmp_path / "build") == ["a.txt"]
    assert names(tmp_path / ".hid") == ["b.txt"]
    found = walk([tmp_path / "c.log"])
    assert [(file.name, file.size, file.path) for file in found.files] == [("c.log", 1, (tmp_path / "c.log").resolve())]
    put(tmp_path / "binary.log", b"\0")
    assert walk([tmp_path / "binary.log"]).left_out == {"binary": 1}


def test_a_path_with_nothing_there_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match=r"nowhere' cannot be indexed: there is no such folder or file"):
        walk([tmp_path / "nowhere"])


@posix
def test_links_are_not_followed(tmp_path):
    put(tmp_path / "outside/secret.txt")
    put(tmp_path / "in/a.txt")
    (tmp_path / "in/out").symlink_to(tmp_path / "outside")
    (tmp_path / "in/round").symlink_to(tmp_path / "in")
    (tmp_path / "in/file.txt").symlink_to(tmp_path / "outside/secret.txt")
    (tmp_path / "in/broken.txt").symlink_to(tmp_path / "nowhere")
    found = walk([tmp_path / "in"])
    assert [file.name for file in found.files] == ["a.txt"]
    assert found.left_out == {"link": 4}
    (tmp_path / "given").symlink_to(tmp_path / "in")
    assert names(tmp_path / "given") == ["a.txt"]


@posix
def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    assert walk([tmp_path]).left_out == {"no regular file": 1}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no such names")
def test_a_name_that_is_no_utf8_is_counted(tmp_path):
    with open(os.fsencode(tmp_path) + b"/bad\xff.txt", "w") as file:
        file.write("x")
    os.mkdir(os.fsencode(tmp_path) + b"/folder\xff")
    assert walk([tmp_path]).left_out == {"name not in UTF-8": 2}


@posix
def test_what_may_not_be_read_is_counted(tmp_path, monkeypatch):
    put(tmp_path / "a.txt")
    put(tmp_path / "closed/b.txt")
    put(tmp_path / "gone.txt")
    real_open, real_scan = Path.open, os.scandir

    # Root may read everything, so permissions would not show it.
    def opened(path, *arguments):
        if path.name == "a.txt":
            raise PermissionError
        if path.name == "gone.txt":
            raise FileNotFoundError
        return real_open(path, *arguments)

    def scanned(path):
        if str(path).endswith("closed/"):
            raise PermissionError
        return real_scan(path)

    monkeypatch.setattr(Path, "open", opened)
    monkeypatch.setattr(os, "scandir", scanned)
    found = walk([tmp_path])
    assert found.files == []
    assert found.left_out == {"unreadable": 2}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no path of this length")
def test_folders_may_be_nested_more_deeply_than_calls(tmp_path):
    folder = tmp_path
    for _ in range(1_200):
        folder = folder / "d"
    depth = sys.getrecursionlimit()
    sys.setrecursionlimit(max(depth, 5_000))
    try:
        folder.mkdir(parents=True)
    finally:
        sys.setrecursionlimit(depth)
    put(folder / "a.txt")
    try:
        assert len(names(tmp_path)) == 1
    finally:
        subprocess.run(["rm", "-r", str(tmp_path / "d")], check=True)
