"""What the demo reads: the standard library, parsed and not imported."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

from embrief.evaluation import corpus
from embrief.evaluation.corpus import MAX_CHARACTERS, MIN_CHARACTERS, Entry, corpus_id, read_corpus

LONG = "Copies one thing to another place, and says so in a sentence that is long enough to be found by."


@pytest.fixture
def library(tmp_path):
    def write(**files):
        for name, source in files.items():
            path = tmp_path.joinpath(*name.split("/")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source, "utf-8")
        return tmp_path

    return write


def names(folder, **options):
    return [entry.name for entry in read_corpus(stdlib=folder, **options)]


def doc(number=0):
    return f'"""{LONG} {number}"""'


def test_modules_classes_functions_and_methods_have_qualified_names(library):
    source = (
        f"{doc(0)}\n"
        f"class A:\n    {doc(1)}\n    def m(self):\n        {doc(2)}\n"
        f"    class B:\n        {doc(3)}\n"
        f"async def f():\n    {doc(4)}\n    def inner():\n        {doc(5)}\n"
        f"if True:\n    def g():\n        {doc(6)}\n"
        f"try:\n    pass\nexcept ImportError:\n    def h():\n        {doc(7)}\nelse:\n    def i():\n        {doc(8)}\n"
    )
    found = names(library(**{"pkg/__init__": source.replace("A", "P"), "pkg/mod": source.replace("one", "another")}))
    inside = [".A", ".A.m", ".A.B", ".f", ".g", ".h", ".i"]
    package = ["pkg", *("pkg" + name.replace("A", "P") for name in inside)]
    assert found == [*package, "pkg.mod", *("pkg.mod" + name for name in inside)]


def test_short_docstrings_are_left_out_and_long_ones_are_cut(library):
    exact = "x" * MIN_CHARACTERS
    folder = library(
        a=f'"""{exact[1:]}"""',
        b=f'"""{exact}"""',
        c=f'"""{"y" * (MAX_CHARACTERS + 50)}"""',
        d=f'"""   {exact[1:]}   """',
    )
    found = {entry.name: entry.doc for entry in read_corpus(stdlib=folder)}
    assert found == {"b": exact, "c": "y" * MAX_CHARACTERS}


def test_tests_idle_and_installed_packages_are_left_out(library):
    files = [
        "test/a", "tests/b", "json/tests/c", "idlelib/d", "lib2to3/e", "site-packages/f", "lib-dynload/g",
        "dist-packages/h", "config-3-x86/i", "not-a-name", "test", "__pycache__/j", "kept/k", "test_kept",
    ]  # fmt: skip
    found = names(library(**{name: doc(number) for number, name in enumerate(files)}))
    assert found == ["kept.k", "test_kept"]


def test_files_that_cannot_be_parsed_are_passed_over(library, recwarn):
    folder = library(a=doc(1), b="def (:", c=doc(2) + "\npath = '\\d'")
    (folder / "d.py").write_bytes(b"\x00\x01")
    (folder / "e.py").write_bytes(b"# -*- coding: latin-1 -*-\n" + f'"""{LONG} \xe9"""'.encode("latin-1"))
    assert names(folder) == ["a", "c", "e"]
    assert read_corpus(stdlib=folder)[-1].doc.endswith("\xe9")
    assert not recwarn.list


def test_equal_names_and_equal_texts_count_once(library):
    getter, setter = f"    def x(self):\n        {doc(1)}\n", f"    def x(self, v):\n        {doc(2)}\n"
    source = f"class A:\n    @property\n{getter}    @x.setter\n{setter}"
    folder = library(m=source, n=f"def other():\n    {doc(1)}")
    assert [(entry.name, entry.doc[-1]) for entry in read_corpus(stdlib=folder)] == [("m.A.x", "1")]


def test_a_text_that_no_store_can_take_is_left_out(library):
    folder = library(a=f'"""{LONG} \\ud800"""', b=doc())
    assert names(folder) == ["b"]


def test_common_modules_come_first_and_limit_keeps_the_order(library):
    folder = library(abc=doc(1), shutil=doc(2), zzz=doc(3), tempfile=doc(4))
    assert names(folder) == ["shutil", "tempfile", "abc", "zzz"]
    assert names(folder, limit=3) == ["shutil", "tempfile", "abc"]


def test_private_homes_are_shown_under_the_name_users_know(library):
    assert names(library(_pydecimal=f"class Decimal:\n    {doc()}")) == ["decimal.Decimal"]


def test_an_entry_shows_the_first_line_that_is_not_blank():
    entry = Entry("shutil.copy", "\n  Copy data.  \n\nMore.")
    assert entry.first_line == "Copy data."
    assert entry.text.startswith("shutil.copy\n")


def test_the_corpus_id_covers_names_texts_and_order():
    one, two = Entry("a", "x"), Entry("b", "y")
    ids = {corpus_id(entries) for entries in ([one, two], [two, one], [one], [Entry("c", "x"), two], [])}
    assert len(ids) == 5
    assert corpus_id([one, two]) == corpus_id([Entry("a", "x"), Entry("b", "y")])


@pytest.fixture(scope="module")
def everything():
    return read_corpus()


def test_the_whole_library_is_read_always_in_the_same_order(everything):
    assert everything == read_corpus()
    assert len(everything) > 2500
    assert everything[:40] == read_corpus(40)


def test_python_and_c_modules_are_in_it(everything):
    found = {entry.name: entry for entry in everything}
    assert found["shutil.copytree"].first_line.startswith("Recursively copy a directory tree")
    for name in (
        "math.comb",
        "itertools.groupby",
        "time.strftime",
        "zlib.compress",
        "str.strip",
        "os.stat",
        "io.TextIOWrapper",
    ):
        assert name in found, name


def test_rules_hold_for_the_whole_library(everything):
    assert all(
        MIN_CHARACTERS <= len(entry.doc) <= MAX_CHARACTERS or len(entry.doc) > MAX_CHARACTERS - 9
        for entry in everything
    )
    assert len({entry.name for entry in everything}) == len(everything)
    assert not [
        entry.name for entry in everything if entry.name.startswith(("test.", "idlelib", "lib2to3", "pip.", "numpy"))
    ]


def test_nothing_is_imported_but_the_fixed_list():
    script = (
        "import sys, sysconfig; sysconfig.get_config_vars()\n"
        "from embrief.evaluation.corpus import read_corpus, _C_MODULES\n"
        "before = set(sys.modules); count = len(read_corpus())\n"
        "print(count, *sorted(set(sys.modules) - before - set(_C_MODULES)))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    count, *imported = result.stdout.split()
    assert int(count) > 2500
    # What a listed C module imports by itself.
    assert [name for name in imported if name not in ("copyreg", "_compat_pickle")] == []


def test_no_module_of_the_fixed_list_has_python_source():

    origins = [getattr(find_spec(name), "origin", None) or "" for name in corpus._C_MODULES]
    assert not [name for name in origins if name.endswith(".py")]
