"""The page as people use it: by keyboard, in both colours, on a narrow screen, with hostile texts and without a key."""

from __future__ import annotations

import pytest

from embrief.server.keys import FileKeys
from embrief.server.settings import Limits

from .conftest import EVIL

READY = "document.querySelector('#source').options.length > 0"
SEEN = "!document.body.matches('.busy') && document.querySelector('#prompt .piece')"
QUESTION = "Which planet is red?"


def text(tab, selector: str) -> str:
    return tab.eval(f"document.querySelector({selector!r})?.textContent")


def focused(tab, selector: str) -> bool:
    return tab.eval(f"document.activeElement.matches({selector!r})")


def names(tab, ranking: str) -> list[str]:
    return tab.eval(f"[...document.querySelectorAll('[data-ranking={ranking}] .name')].map((item) => item.textContent)")


def open_and_ask(tab, url: str, question: str = QUESTION) -> None:
    tab.goto(url)
    tab.until(READY)
    tab.type(question)
    tab.press("Enter")
    tab.until(SEEN)


def paste(tab, url: str, texts: str, question: str = QUESTION) -> None:
    """Choose pasted texts by keyboard alone, and ask."""
    tab.goto(url)
    tab.until(READY)
    tab.type(question)
    tab.eval("document.querySelector('#source').focus()")
    tab.press("End")
    tab.until("!document.querySelector('#paste').hidden")
    tab.eval("document.querySelector('#texts').focus()")
    tab.type(texts)
    tab.press("Escape", "Enter")
    tab.until(SEEN)


def test_a_question_from_the_first_key_to_the_prompt(tab, url):
    """Nothing here uses a pointer."""
    open_and_ask(tab, url)
    assert focused(tab, "#question")
    near, judged = names(tab, "nearestA"), names(tab, "rerankedA")
    assert sorted(near) == sorted(judged)
    assert len(near) >= 6
    assert "texts in" in text(tab, "#told")
    moves = [near.index(name) - place for place, name in enumerate(judged)]
    assert any(moves)
    assert tab.eval("[...document.querySelectorAll('.moved [aria-hidden]')].map((item) => item.textContent)") == [
        f"▲{move}" if move > 0 else f"▼{-move}" if move else "=" for move in moves
    ]
    tab.press("ArrowDown")
    assert focused(tab, "[data-ranking=rerankedA] .row:first-child")
    tab.press("ArrowDown", "ArrowDown", "ArrowUp", "ArrowLeft")
    # The same text in the other ranking.
    assert focused(tab, "[data-ranking=nearestA] .row[aria-selected=true]")
    assert text(tab, ".row:focus .name") == judged[1]
    tab.until(f"document.querySelector('#detail-name').textContent === {judged[1]!r}")
    assert tab.eval("document.querySelectorAll('[aria-selected=true].row').length") == 2
    assert tab.eval("document.querySelectorAll('.dot.chosen').length") == 1
    tab.press("End")
    assert text(tab, ".row:focus .name") == near[-1]
    # Into the prompt, back to the question by either key.
    tab.press("Enter")
    assert focused(tab, "#prompt")
    tab.press("/")
    assert focused(tab, "#question")
    assert tab.eval("document.querySelector('#question').value") == QUESTION
    tab.press("Tab", "Tab")
    assert focused(tab, "#source")
    assert tab.eval("getComputedStyle(document.activeElement).outlineStyle") != "none"
    tab.press("Escape")
    assert focused(tab, "#question")


def test_prompts_in_tabs(tab, url):
    open_and_ask(tab, url)
    tab.eval("document.querySelector('#tab-document').focus()")
    tab.press("ArrowRight")
    assert focused(tab, "#tab-question")
    assert text(tab, ".rendered").endswith(f"Query:{QUESTION}<|endoftext|>")
    assert text(tab, ".piece.special") == "<|endoftext|>"
    tab.press("ArrowRight")
    assert focused(tab, "#tab-pair")
    assert text(tab, ".rendered").startswith("<|im_start|>system\n")
    assert "tokens of at most 512" in text(tab, "#prompt .facts")


def test_what_is_cut_off_is_seen(tab, url):
    paste(tab, url, f"{'red planet ' * 400}\n\n{'red planet ' * 220}\n\nMars is red.")
    first = "[...document.querySelectorAll('.name')].find((item) => item.textContent === 'Text 1')"
    tab.eval(f"{first}.closest('.row').focus()")
    tab.until("document.querySelector('#prompt .piece.cut')")
    assert "are cut off" in text(tab, "#prompt .facts.warned")
    assert "1 text is longer than tiny reads." in text(tab, "#told")
    # With the question and its template the reranker reads less of a text.
    assert tab.eval("document.querySelectorAll('[data-ranking=nearestA] .warned').length") == 1
    assert tab.eval("document.querySelectorAll('[data-ranking=rerankedA] .warned').length") == 2


def test_two_instructions_side_by_side(tab, url):
    tab.goto(url)
    tab.until(READY)
    tab.type("planet")
    tab.eval("document.querySelector('#compare').focus()")
    tab.press("Enter")
    assert focused(tab, "#second")
    tab.type("Find texts about water")
    tab.press("Enter")
    tab.until(SEEN)
    views = tab.eval("[...document.querySelectorAll('#views button')].map((item) => item.textContent)")
    assert views == ["A and B after the reranker", "A and B by vector", "A alone", "B alone"]
    assert names(tab, "rerankedA")
    assert names(tab, "rerankedB")
    tab.eval("document.querySelector('#views button:nth-child(2)').focus()")
    tab.press("Enter")
    assert sorted(names(tab, "nearestA")) == sorted(names(tab, "nearestB"))
    assert tab.eval("document.querySelectorAll('.asked').length") == 2
    tab.until(SEEN)
    tab.eval("document.querySelector('#tab-question').click()")
    assert tab.eval("[...document.querySelectorAll('.shown h3')].map((item) => item.textContent)") == [
        "Instruction A",
        "Instruction B",
    ]
    assert "Find texts about water" in text(tab, ".shown:last-child .rendered")


def test_markup_is_text(tab, url):
    """In texts, names of files, questions and instructions; the tab notes dialogs and violations of the policy."""
    open_and_ask(tab, url, f"{EVIL} red planet")
    for place in range(tab.eval("document.querySelectorAll('[data-ranking=rerankedA] .row').length")):
        tab.eval(f"document.querySelectorAll('[data-ranking=rerankedA] .row')[{place}].focus()")
        tab.until(SEEN)
        for name in ("pair", "question", "document"):
            tab.eval(f"document.querySelector('#tab-{name}').click()")
    assert EVIL in tab.eval("document.querySelector('#results').textContent")
    assert "<script>alert(2)</script>" in tab.eval("document.querySelector('#results').textContent")
    paste(tab, url, f"{EVIL}\n\n<script>alert(4)</script>", EVIL)
    assert names(tab, "nearestA")
    assert EVIL in text(tab, "[data-ranking=nearestA]")
    assert tab.eval("document.querySelectorAll('main img, main script, .rendered *:not(.piece)').length") == 0
    assert not [address for address in tab.requests if address.endswith("/x")]
    assert {address.split("/ui/")[0] for address in tab.requests} == {url.removesuffix("/ui/")}


def test_the_policy_stops_what_would_get_through(tab, url):
    """The test above would pass without a policy: this one sees that there is one."""
    tab.goto(url)
    tab.until(READY)
    with pytest.raises(RuntimeError, match="TrustedHTML"):
        tab.eval(f"document.body.innerHTML = {EVIL!r}")
    tab.eval("document.body.append(Object.assign(document.createElement('img'), {src: 'https://example.org/x'}))")
    tab.until("true")
    assert [said for said in tab.complaints if "Content Security Policy" in said]
    tab.complaints.clear()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_colours_can_be_read(tab, url, dark):
    """All that is said has a contrast of 4.5 at least."""
    tab.look(dark=dark)
    open_and_ask(tab, url)
    worst = tab.eval(CONTRAST)
    assert worst["ratio"] >= 4.5, worst
    assert worst["dark"] is dark


CONTRAST = """(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const light = (rgb) => {
    const linear = (value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = rgb.slice(0, 3).map((value) => linear(value / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const under = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.unshift(rgb(getComputedStyle(at).backgroundColor));
    return layers.reduce((below, [r, g, b, a]) => [r, g, b].map((v, i) => v * a + below[i] * (1 - a)), [255, 255, 255]);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let worst = { ratio: 99 };
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility()) continue;
    if (element.closest("svg, .skip, .unseen, select")) continue;
    const [front, back] = [light(rgb(getComputedStyle(element).color)), light(under(element))];
    const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    if (ratio < worst.ratio) worst = { ratio, text: element.className + ": " + element.textContent.slice(0, 40) };
  }
  worst.dark = light(under(document.body)) < 0.5;
  return worst;
})()"""


def test_nothing_is_wider_than_a_narrow_screen(tab, url):
    tab.look(width=360, height=740)
    open_and_ask(tab, url)
    for index in range(tab.eval("document.querySelectorAll('[data-ranking=rerankedA] .row').length")):
        tab.eval(f"document.querySelectorAll('[data-ranking=rerankedA] .row')[{index}].focus()")
        tab.until(SEEN)
        assert tab.eval("document.documentElement.scrollWidth") == 360
    wide = "[...document.querySelectorAll('main *')].filter((item) => item.getBoundingClientRect().right > 361).length"
    assert tab.eval(wide) == 0
    # Long words, and texts that run from right to left, stay in their boxes.
    assert tab.eval("[...document.querySelectorAll('.prompt')].every((item) => item.scrollWidth <= item.clientWidth)")
    arabic = "[...document.querySelectorAll('.snippet')].find((item) => item.textContent.includes('المريخ'))"
    assert tab.eval(f"getComputedStyle({arabic}).direction") == "rtl"


def test_a_server_with_keys_asks_for_one(tab, serve, key_file):
    with serve(keys=FileKeys(key_file)) as url:
        tab.goto(url)
        tab.until("document.querySelector('#key-dialog').open")
        assert focused(tab, "#key")
        tab.type("wrong")
        tab.press("Enter")
        tab.until("!document.querySelector('#key-problem').hidden")
        assert text(tab, "#key-problem") == "The key is not known."
        tab.type("s3cret")
        tab.press("Enter")
        tab.until("!document.querySelector('#key-dialog').open")
        assert focused(tab, "#question")
        assert tab.eval("document.querySelector('#source').selectedOptions[0].textContent") == "things"
        tab.type(QUESTION)
        tab.press("Enter")
        tab.until(SEEN)
        # A key that may read nothing sees nothing, not even what another one has seen.
        tab.eval("document.querySelector('#key-button').click()")
        tab.eval("document.querySelector('#key-forget').click()")
        tab.until("document.querySelector('#key-dialog').open")
        assert tab.eval("document.querySelector('#results').hidden")
        assert tab.eval("document.querySelector('#pair').textContent") == ""
        tab.type("nothing")
        tab.press("Enter")
        tab.until("!document.querySelector('#key-dialog').open")
        assert "no collection" in text(tab, "#told")
        assert "s3cret" not in str(tab.requests) + tab.eval("document.documentElement.outerHTML")
    # What the browser itself says of 401.
    tab.complaints[:] = [said for said in tab.complaints if "401" not in said]


def test_failures_are_sentences(tab, serve):
    with serve(limits=Limits(max_items=2)) as url:
        tab.goto(url)
        tab.until(READY)
        tab.press("Enter")
        assert text(tab, "#problem") == "Write a question first."
        assert focused(tab, "#question")
        tab.press("Escape")
        assert tab.eval("document.querySelector('#problem').hidden")
        tab.type(QUESTION)
        tab.eval("document.querySelector('#source').focus()")
        tab.press("End", "Escape", "Enter")
        tab.until("!document.querySelector('#problem').hidden")
        assert text(tab, "#problem") == "Paste a text first, or take the example."
        tab.type("one\n\ntwo\n\nthree")
        tab.press("Escape", "Escape", "Enter")
        told = "3 texts are more than a request may have (max_items is 2)."
        tab.until(f"document.querySelector('#problem').textContent === {told!r}")
    tab.press("Enter")
    told = "The server does not answer. Is it still running?"
    tab.until(f"document.querySelector('#problem').textContent === {told!r}")
    tab.complaints[:] = [said for said in tab.complaints if "Failed to load resource" not in said]


def test_the_wait_can_be_ended(tab, url):
    tab.goto(url)
    tab.until(READY)
    tab.eval("{ const real = window.fetch; window.fetch = (path, options) => path.endsWith('search') ? "
             "new Promise((_, fail) => options.signal.addEventListener('abort', () => "
             "fail(new DOMException('', 'AbortError')))) : real(path, options); }")  # fmt: skip
    tab.type(QUESTION)
    tab.press("Enter")
    tab.until("document.body.matches('.busy')")
    assert text(tab, "#told") == "Asking."
    assert text(tab, "#go") == "Asking"
    tab.press("Escape")
    assert not tab.eval("document.body.matches('.busy')")
    assert text(tab, "#told") == "Stopped."
