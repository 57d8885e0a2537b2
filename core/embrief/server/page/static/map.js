// Vectors as points: texts by their place in the ranking, and the question.

import { many, number, svg } from "./dom.js";

const [WIDTH, HEIGHT, EDGE] = [420, 210, 18];

function scaled(points) {
  const [xs, ys] = [points.map((point) => point[0]), points.map((point) => point[1])];
  const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  // One scale for both axes: distances on the map can be compared.
  const across = (WIDTH - 2 * EDGE) / (right - left || 1e-9);
  const up = (HEIGHT - 2 * EDGE) / (high - low || 1e-9);
  const scale = right - left || high - low ? Math.min(across, up) : 0;
  return points.map(([x, y]) => [
    WIDTH / 2 + (x - (left + right) / 2) * scale,
    HEIGHT / 2 - (y - (low + high) / 2) * scale,
  ]);
}

function dot([x, y], label, document) {
  return svg(
    "g",
    { class: "dot", "data-document": document, transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})` },
    svg("circle", { r: 9 }),
    svg("text", { y: 3.5 }, label),
  );
}

function asked([x, y], label) {
  return svg(
    "g",
    { class: "asked", transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})` },
    svg("rect", { x: -9, y: -9, width: 18, height: 18, rx: 3, transform: "rotate(45)" }),
    svg("text", { y: 4 }, label),
  );
}

export function explain(found) {
  const [first, second] = found.map.explained;
  const count = found.map.documents.length + found.map.questions.length;
  if (first === 0) return "All vectors are the same.";
  const percent = (share) => `${number(share * 100)} %`;
  return `${percent(first + second)} of how these ${count} vectors differ is seen here (${percent(first)} across, ` +
    `${percent(second)} up).`;
}

export class Chart {
  #element;

  constructor(element, onSelect) {
    this.#element = element;
    element.addEventListener("click", (event) => {
      const found = event.target.closest(".dot");
      if (found) onSelect(Number(found.dataset.document));
    });
  }

  render(found, ranking) {
    const { documents, questions } = found.map;
    const points = scaled([...documents, ...questions]);
    const dots = ranking.places
      .map((place, index) => dot(points[place.document], String(index + 1), place.document))
      .reverse();
    const marks = questions.map((_, index) =>
      asked(points[documents.length + index], questions.length > 1 ? "AB"[index] : "?"),
    );
    const told = `Map of ${many(documents.length, "text")} and the question. ${explain(found)}`;
    this.#element.replaceChildren(
      svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": told }, ...dots, ...marks),
    );
  }

  select(document) {
    for (const found of this.#element.querySelectorAll(".dot")) {
      const chosen = Number(found.dataset.document) === document;
      found.classList.toggle("chosen", chosen);
      // What comes last is drawn on top.
      if (chosen) found.parentElement.append(found);
    }
  }
}
