"""Where documents are cut: nothing is lost, nothing is too long, and what belongs together stays together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embrief.errors import ArgumentError
from embrief.indexing.documents import Document, Passage
from embrief.indexing.passages import Count, split
from embrief.indexing.reading import read
from embrief.indexing.walking import walk

PROJECT = Path(__file__).parents[2]
DATA = Path(os.environ.get("EMBRIEF_TEST_DATA", PROJECT / "../shared/data"))


def words(texts: Sequence[str], titles: Sequence[str | None]) -> list[int]:
    """A tokenizer of bytes, three at a time, with something around each text."""
    return [
        2 + len((title or "").encode()) // 3 + -(-len(text.encode()) // 3)
        for text, title in zip(texts, titles, strict=True)
    ]


@cache
def qwen() -> Count:
    """The real tokenizer, with the prompt of a model that has a place for titles."""
    file = DATA / "tokenizers/qwen3-embedding-0.6b/tokenizer.json"
    if not file.is_file():
        pytest.skip(f"no tokenizer at {file}: EMBRIEF_TEST_DATA is not set")
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(file))

    def count(texts: Sequence[str], titles: Sequence[str | None]) -> list[int]:
        rendered = [f"title: {title or 'none'} | text: {text}" for text, title in zip(texts, titles, strict=True)]
        return [len(encoding.ids) for encoding in tokenizer.encode_batch(rendered)]

    return count


def rows(text: str) -> list[str]:
    """Lines as an editor counts them, with their ends."""
    found, row = [], ""
    for at, character in enumerate(text):
        row += character
        if character == "\n" or (character == "\r" and text[at + 1 : at + 2] != "\n"):
            found, row = [*found, row], ""
    return [*found, row]


def check(document: Document, passages: Sequence[Passage], count: Count, max_tokens: int) -> None:
    """All that holds for every document."""
    texts = [passage.text for passage in passages]
    assert all(number <= max_tokens for number in count(texts, [passage.title for passage in passages]))
    assert all(text.strip() for text in texts)
    at, lines = 0, rows(document.text) if len(document.text) < 5_000 else document.text.splitlines(keepends=True)
    for passage in passages:
        start = document.text.index(passage.text, at)
        assert not document.text[at:start].strip(), "text between passages is lost"
        at = start + len(passage.text)
        if not document.lines and not document.pages:
            inside = "".join(lines[passage.start_line - 1 : passage.end_line])
            assert passage.text in inside
            assert passage.text[:1] in lines[passage.start_line - 1]
            assert passage.end_line - passage.start_line == len(rows(passage.text)) - 1
    assert not document.text[at:].strip(), "text at the end is lost"


CHARACTERS = "ab.#-`@:(){}[]\"' \t\n\r\x0c\u2028漢é😀\u0301\u200d"
LETTERS = st.sampled_from([*CHARACTERS, "\r\n", "\n\n", "def f():\n", "@d\n", "class A:\n", "    ", "# h\n", "```\n"])
KINDS = [("text", ""), ("markdown", ""), *[("code", name) for name in ("python", "javascript", "cpp", "")]]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(LETTERS, max_size=120).map("".join),
    st.sampled_from(KINDS),
    st.integers(8, 60),
    st.sampled_from([None, "a.py"]),
)
def test_any_text_is_covered_by_passages_that_fit(text, kind, max_tokens, title):
    document = Document(text, kind[0], kind[1], title)
    check(document, split(document, words, max_tokens), words, max_tokens)


@pytest.mark.parametrize(
    "text",
    [
        "x" * 20_000,
        "漢字" * 5_000,
        "👩‍👩‍👧‍👦" * 2_000,
        "a" + "\u0301" * 9_000,
        "これは日本語の文章です。" * 600,
        "word " * 8_000,
        "a\r\nb\r\n" * 3_000,
        "a\rb\r" * 3_000,
        "\n" * 5_000 + "end",
        '{"a": [' + "1234, " * 9_000 + "]}",
    ],
)
@pytest.mark.parametrize("kind", ["text", "markdown", "code"])
def test_texts_that_are_hard_to_cut(text, kind):
    document = Document(text, kind, "json" if kind == "code" else "", "t")
    passages = split(document, words, 512)
    joined = "".join("".join(passage.text for passage in passages).split())
    assert joined == "".join(text.split())
    assert max(words([passage.text for passage in passages], [passage.title for passage in passages])) <= 512
    assert [passage.end_line for passage in passages] == sorted(passage.end_line for passage in passages)


def test_this_project_with_a_real_tokenizer():
    documents = [read(file) for file in walk([PROJECT / "core/embrief/indexing", PROJECT / "docs"]).files]
    assert {document.kind for document in documents} >= {"code", "markdown"}
    for document in documents:
        passages = split(document, qwen())
        check(document, passages, qwen(), 512)


def test_real_documentation_with_a_real_tokenizer():
    qwen()
    for file in walk([DATA / "docs"], limit=25).files:
        document = read(file)
        check(document, split(document, qwen()), qwen(), 512)


def test_passages_are_not_far_smaller_than_they_may_be():
    document = read(walk([PROJECT / "core/embrief/facades/embedder.py"]).files[0])
    passages = split(document, qwen())
    total = sum(qwen()([passage.text for passage in passages], [None] * len(passages)))
    assert total / len(passages) > 256


def test_the_tokenizer_is_asked_little():
    asked: list[int] = []

    def count(texts: Sequence[str], titles: Sequence[str | None]) -> list[int]:
        asked.append(sum(map(len, texts)))
        return words(texts, titles)

    text = "\n\n".join(f"Paragraph {number} has some words, and a number." for number in range(2_000))
    split(Document(text, "text"), count, 512)
    assert len(asked) <= 4
    assert sum(asked) < 1.5 * len(text)


def test_a_short_file_is_one_passage_with_its_title():
    assert split(Document("\n\nx = 1\ny = 2\n\n", "code", "python", "a.py"), words) == [
        Passage("x = 1\ny = 2", 3, 4, None, "a.py")
    ]
    assert split(Document(" \n\t\n", "text"), words) == []
    assert split(Document("", "text"), words) == []


PYTHON = '''"""Module."""

import os


@decorated(
    "with arguments",
    that_take="lines",
)
@again
class Holder:
    """What it holds."""

    size = 1

    @property
    def first(self):
        return "a line that has some length, for the first of them"

    # What is above a function
    # belongs to it.
    @cached
    @wrapped(1)
    async def second(self):
        return "a line that has some length, for the second of them"

    def third(self):
        def inner():
            return "a line that has some length, for the third of them"

        return inner


def alone():
    return "a line that has some length, for the last of them all"
'''


@pytest.mark.parametrize("max_tokens", range(50, 140, 5))
def test_a_decorator_stays_with_what_it_decorates(max_tokens):
    passages = split(Document(PYTHON, "code", "python", "m.py"), words, max_tokens)
    check(Document(PYTHON, "code", "python", "m.py"), passages, words, max_tokens)
    for passage in passages:
        last = passage.text.split("\n")[-1].strip()
        # Not the decorator, nor its end.
        assert not last.startswith(("@", ")")), passage.text
        # Nor a comment above, nor the line that opens a block, where there is room.
        assert max_tokens < 75 or not last.startswith(("#", "class", "async", "def")), passage.text


def test_code_keeps_the_blanks_that_its_first_line_begins_with():
    passages = split(Document(PYTHON, "code", "python", "m.py"), words, 75)
    assert any(passage.text.startswith("    @property\n    def first") for passage in passages)


def test_code_is_named_by_what_it_defines():
    document = Document(PYTHON, "code", "python", "m.py")
    titles = [passage.title for passage in split(document, words, 75)]
    assert titles == [
        "m.py", "m.py: Holder", "m.py: Holder.first", "m.py: Holder.second", "m.py: Holder.third", "m.py: alone",
    ]  # fmt: skip
    assert split(document, words, 90)[-1].title == "m.py: Holder.third, alone"
    whole = split(Document(PYTHON, "code", "python", "m.py"), words)
    assert [passage.title for passage in whole] == ["m.py: Holder, alone"]


def test_what_continues_a_function_has_its_name():
    body = "\n".join(f"    value_{number} = {number}" for number in range(100))
    code = f"class A:\n    def f(self):\n        pass\n\n\ndef g():\n{body}\n\n\ndef h():\n    pass\n"
    titles = [passage.title for passage in split(Document(code, "code", "python", "m.py"), words, 200)]
    assert titles == ["m.py: A", *["m.py: g"] * (len(titles) - 2), "m.py: g, h"]


C = """struct point {
  int x;
};

static int add(int a,
    int b)
{
  if (a) {
    return b;
  }
  return a;
}
"""
C_SHARP = """namespace N {
  [Serializable]
  public class C {
    public int F(int x) {
      return x;
    }
  }
}
"""
GO = """type Point struct {
\tX int
}

func (p *Point) Add(o Point) int {
\treturn 1
}

func Main() {
}
"""
JAVASCRIPT = """export class A {
  run(x) {
  }
}

export const f = async (x) => {
};

function g() {
}
"""
RUST = """pub struct S {
    x: u8,
}

impl<T> Show for S {
    pub(crate) fn f() {
    }
}

fn g() {
}
"""
LANGUAGES = {
    "bash": ("setup() {\n  echo one\n}\n\nfunction other {\n  echo two\n}\n", "setup, other"),
    "c": (C, "point, add"),
    "c_sharp": (C_SHARP, "N"),
    "cpp": ("int Shape::area(int x) const {\n  return x;\n}\n\nclass Circle : public Shape {\n};\n", "area, Circle"),
    "go": (GO, "Point, Point.Add, Main"),
    "java": ("public class Main {\n  private int x;\n\n  public Main(int x) {\n  }\n}\n", "Main"),
    "javascript": (JAVASCRIPT, "A, f, g"),
    "php": ("<?php\nabstract class A {\n  public static function f() {\n  }\n}\nfunction g() {\n}\n", "A, g"),
    "ruby": ("module M\n  class A\n    def self.run?\n      1\n    end\n  end\nend\n\ndef g\nend\n", "M, g"),
    "rust": (RUST, "S, g"),
    "typescript": (
        "export interface I {\n  x: number;\n}\n\nabstract class B<T> {\n}\n\ntype T = number;\n",
        "I, B, T",
    ),
    "tsx": ("export default function App() {\n  return <a/>;\n}\n", "App"),
    "css": ("a { color: red }\n", ""),
    "json": ('{"a": 1}\n', ""),
    "html": ("<template><a/></template>\n", ""),
    "unknown": ("some code\n", ""),
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_is_cut_and_named(language):
    code, names = LANGUAGES[language]
    document = Document(code * 12, "code", language, "file")
    check(document, split(document, words, 40), words, 40)
    (whole,) = split(Document(code, "code", language, "file"), words)
    assert whole.title == (f"file: {names}" if names else "file")


def test_every_grammar_that_is_named_is_there():
    from embrief.indexing.cutting import _grammar
    from embrief.indexing.kinds import _LANGUAGES

    assert [language for language in _LANGUAGES if _grammar(language) is None] == []


MARKDOWN = """# The manual

What it is about.

## Installing

### On Linux

Take the package.

```bash
# no heading
make install
```

### On others

Take the other package, which is for those that are not Linux, and has more files.

## Using

Run it.
"""


def test_markdown_is_named_by_the_headings_above():
    passages = split(Document(MARKDOWN, "markdown", title="The manual"), words, 80)
    check(Document(MARKDOWN, "markdown", title="The manual"), passages, words, 80)
    found = {passage.title for passage in passages}
    assert "The manual > Installing > On others" in found
    assert all(title is not None and title.startswith("The manual") for title in found)
    other = split(Document(MARKDOWN, "markdown", title="A title above"), words)
    assert [passage.title for passage in other] == ["A title above > The manual"]


@pytest.mark.parametrize("max_tokens", range(30, 90, 4))
def test_a_heading_stays_with_its_text(max_tokens):
    for passage in split(Document(MARKDOWN, "markdown", title="The manual"), words, max_tokens):
        last = passage.text.split("\n")[-1]
        assert not last.startswith("#") or last == "# no heading", passage.text
        assert passage.text.strip("`\n "), "a fence alone"


@pytest.mark.parametrize("max_tokens", range(30, 90, 4))
def test_the_end_of_a_block_of_code_stays_with_it(max_tokens):
    code = "\n".join(f"command --number {number}" for number in range(30))
    document = Document(f"# A\n\n```bash\n{code}\n```\n\n## B\n\nWords.\n", "markdown", title="A")
    passages = split(document, words, max_tokens)
    check(document, passages, words, max_tokens)
    assert not any(passage.text.startswith("```\n") for passage in passages)
    assert not any(passage.text.endswith("```bash") for passage in passages)


def test_what_is_small_is_joined_to_what_comes_next():
    first, *_ = split(Document(PYTHON, "code", "python", "m.py"), words, 110)
    assert first.text.startswith('"""Module."""')
    assert "class Holder" in first.text


def test_a_page_of_a_pdf_is_not_joined_to_the_next():
    short = split(Document("One\n\n\nTwo\n", "pdf", pages=(0, 5, 6)), words)
    assert short == [Passage("One", 1, 1, 1), Passage("Two", 1, 1, 3)]
    text = "One\nof the first\n\n\nTwo\n" + "three words here\n" * 60
    passages = split(Document(text, "pdf", title="T", pages=(0, 17, 19)), words, 60)
    assert (passages[0], passages[1].page, passages[1].start_line) == (Passage("One\nof the first", 1, 2, 1, "T"), 3, 1)
    assert {passage.page for passage in passages} == {1, 3}
    assert passages[-1].end_line == 61
    assert all(passage.title == "T" for passage in passages)


def test_lines_of_a_page_are_those_of_the_file():
    text = "\n".join(f"This is line {number} of the text that was found" for number in range(40))
    lines = tuple(10 + 3 * number for number in range(40))
    passages = split(Document(text, "html", title="T", lines=lines), words, 100)
    assert len(passages) > 3
    for passage in passages:
        first, last = (
            next(int(word) for word in row.split() if word.isdigit())
            for row in (passage.text.split("\n")[0], passage.text.split("\n")[-1])
        )
        assert (passage.start_line, passage.end_line) == (10 + 3 * first, 10 + 3 * last)


def test_a_long_title_leaves_room_for_the_text():
    document = Document("word " * 3_000, "text", title="A title that goes on and on " * 40)
    passages = split(document, words, 64)
    check(document, passages, words, 64)
    assert max(len(passage.title or "") for passage in passages) <= 32
    headings = (
        "".join(f"{'#' * level} A heading of level {level} that is long\n\n" for level in range(1, 7)) + "Words.\n"
    )
    (passage,) = split(Document(headings, "markdown", title="A heading of level 1 that is long"), words)
    assert passage.title is not None
    assert len(passage.title) <= 200
    assert passage.title.startswith("A heading of level 1")
    assert passage.title.endswith("level 6 that is long")


def test_a_title_that_takes_all_the_room_is_left_out():
    def count(texts: Sequence[str], titles: Sequence[str | None]) -> list[int]:
        return [len(text) + 100 * len(title or "") for text, title in zip(texts, titles, strict=True)]

    passages = split(Document("abc " * 20, "text", title="T" * 9), count, 50)
    assert {passage.title for passage in passages} == {None}
    assert max(len(passage.text) for passage in passages) <= 50


def test_a_prompt_that_takes_all_the_room_is_an_error():
    with pytest.raises(
        ArgumentError, match=r"max_tokens=2 is too little: with the model's prompt, one character has 3 tokens"
    ):
        split(Document("Secret", "text"), words, 2)
    with pytest.raises(ArgumentError, match="max_tokens=0"):
        split(Document("Secret", "text"), words, 0)
