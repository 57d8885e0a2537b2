// Two rankings side by side, and lines from a text's place in one to its place in the other.

import { el, many, number, svg } from "./dom.js";

export const placeOf = (ranking, document) => ranking.places.findIndex((place) => place.document === document);

export function nameOf(text) {
  if (text.path === null) return `Text ${text.number}`;
  const page = text.page === null ? "" : ` page ${text.page}`;
  return text.start_line === null ? `${text.path}${page}` : `${text.path}:${text.start_line}${page}`;
}

function bar(score) {
  const width = `${Math.min(Math.max(score, 0), 1) * 100}%`;
  return svg(
    "svg",
    { class: "bar", "aria-hidden": "true" },
    svg("rect", { class: "track", width: "100%", height: "100%", rx: 1.5 }),
    svg("rect", { class: "fill", width, height: "100%", rx: 1.5 }),
  );
}

function movement(before, now) {
  if (before === null) return null;
  if (before < 0) return el("span", { class: "moved new" }, "new");
  const moved = before - now;
  if (moved === 0) return el("span", { class: "moved same" }, el("span", { "aria-hidden": "true" }, "="),
    el("span", { class: "unseen" }, "same place"));
  const told = `${moved > 0 ? "up" : "down"} ${many(Math.abs(moved), "place")}`;
  return el(
    "span",
    { class: `moved ${moved > 0 ? "up" : "down"}` },
    el("span", { "aria-hidden": "true" }, `${moved > 0 ? "▲" : "▼"}${Math.abs(moved)}`),
    el("span", { class: "unseen" }, told),
  );
}

// The first words, without the heading that the title says already.
function beginning(text) {
  const said = text.text.slice(0, 600);
  const below = text.title ? said.replace(/^#+ [^\n]*\n+/, "") : said;
  return (below.trim() || said).replace(/\s+/g, " ").trim();
}

function row(text, place, index, before, pictures) {
  const name = el("span", { class: "name", dir: "auto" }, nameOf(text));
  const cut = (place.truncated ?? text.truncated) ? el("span", { class: "moved warned" }, "cut off") : null;
  const snippet = text.picture
    ? pictures.show(text.picture, "small")
    : el("span", { class: "snippet", dir: "auto" }, beginning(text));
  return el(
    "li",
    {
      class: "row",
      role: "option",
      tabindex: index === 0 ? "0" : "-1",
      "aria-selected": "false",
      "data-document": place.document,
    },
    el("span", { class: "place" }, String(index + 1)),
    el("span", { class: "said" }, el("span", { class: "first" }, name, movement(before, index), cut), snippet),
    el("span", { class: "score" }, number(place.score, 3), bar(place.score)),
  );
}

function list(ranking, texts, other, pictures) {
  const rows = ranking.places.map((place, index) =>
    row(texts[place.document], place, index, other ? placeOf(other, place.document) : null, pictures),
  );
  const heading = el("h2", { id: `ranking-${ranking.id}` }, ranking.name);
  const listed = el("ol", { role: "listbox", "aria-labelledby": heading.id, "data-ranking": ranking.id }, ...rows);
  return el("div", { class: "ranking" }, heading, el("p", { class: "facts", dir: "auto" }, ranking.told), listed);
}

export class Pair {
  #element;
  #selected = null;
  #onSelect;
  #onLeave;
  #pictures;

  constructor(element, pictures, onSelect, onLeave) {
    this.#element = element;
    this.#pictures = pictures;
    this.#onSelect = onSelect;
    this.#onLeave = onLeave;
    element.addEventListener("keydown", (event) => this.#key(event));
    element.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row) this.#go(row);
    });
    element.addEventListener("focusin", (event) => {
      const row = event.target.closest(".row");
      if (row) this.select(Number(row.dataset.document));
    });
    new ResizeObserver(() => this.#draw()).observe(element);
  }

  render(left, right, texts) {
    const lists = [list(left, texts, null, this.#pictures)];
    if (right) lists.push(svg("svg", { class: "slopes", "aria-hidden": "true" }), list(right, texts, left, this.#pictures));
    this.#element.classList.toggle("single", !right);
    this.#element.replaceChildren(...lists);
    this.#selected = null;
    this.#draw();
  }

  select(document) {
    if (this.#selected === document) return;
    this.#selected = document;
    for (const listed of this.#element.querySelectorAll("ol")) {
      const rows = [...listed.children];
      const chosen = rows.find((row) => Number(row.dataset.document) === document);
      for (const row of rows) {
        row.setAttribute("aria-selected", String(row === chosen));
        row.tabIndex = row === (chosen ?? rows[0]) ? 0 : -1;
      }
    }
    for (const line of this.#element.querySelectorAll(".slopes path")) {
      line.classList.toggle("chosen", Number(line.dataset.document) === document);
    }
    this.#onSelect(document);
  }

  #go(row) {
    row.focus();
    row.scrollIntoView({ block: "nearest" });
  }

  #key(event) {
    const row = event.target.closest(".row");
    if (!row || event.altKey || event.ctrlKey || event.metaKey) return;
    const rows = [...row.parentElement.children];
    const at = rows.indexOf(row);
    let next = null;
    if (event.key === "ArrowDown") next = rows[at + 1];
    else if (event.key === "ArrowUp") next = rows[at - 1];
    else if (event.key === "Home") next = rows[0];
    else if (event.key === "End") next = rows.at(-1);
    else if (event.key === "ArrowLeft" || event.key === "ArrowRight") next = this.#across(row, event.key);
    else if (event.key === "Enter") {
      this.#onLeave();
      next = null;
    } else return;
    event.preventDefault();
    if (next) this.#go(next);
  }

  #across(row, way) {
    const [left, right] = this.#element.querySelectorAll("ol");
    const other = way === "ArrowLeft" ? left : right;
    if (!other || row.parentElement === other) return null;
    return [...other.children].find((item) => item.dataset.document === row.dataset.document) ?? other.children[0];
  }

  #draw() {
    const slopes = this.#element.querySelector(".slopes");
    const [left, right] = this.#element.querySelectorAll("ol");
    if (!slopes || !right) return;
    const frame = slopes.getBoundingClientRect();
    if (!frame.width) return;
    const middle = (row) => {
      const found = row.getBoundingClientRect();
      return found.top + found.height / 2 - frame.top;
    };
    const ends = new Map([...right.children].map((row) => [row.dataset.document, middle(row)]));
    const lines = [...left.children]
      .filter((row) => ends.has(row.dataset.document))
      .map((row) => {
        const [from, to, half] = [middle(row), ends.get(row.dataset.document), frame.width / 2];
        const chosen = row.getAttribute("aria-selected") === "true" ? "chosen" : null;
        return svg("path", {
          d: `M0 ${from} C${half} ${from} ${half} ${to} ${frame.width} ${to}`,
          class: chosen,
          "data-document": row.dataset.document,
        });
      });
    slopes.replaceChildren(...lines);
  }
}
