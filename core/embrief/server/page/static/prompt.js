// What a model reads of a text: prompt and text, token by token, markers as such, and what is cut off.

import { el, many, number } from "./dom.js";

function piece(item, index) {
  const kinds = ["piece", item.part];
  if (item.special) kinds.push("special");
  if (item.cut) kinds.push("cut");
  if (item.tokens) kinds.push(index % 2 ? "odd" : "even");
  const titles = [];
  if (item.special) titles.push(item.part === "text" ? "a marker inside the text" : "a marker of the model's");
  if (item.tokens > 1) titles.push(many(item.tokens, "token"));
  if (item.cut) titles.push("cut off: the model does not read it");
  return el("span", { class: kinds.join(" "), title: titles.join("; ") || null }, item.text);
}

export function counted(shown) {
  if (shown.tokens === null) return "This runtime does not tell its tokens.";
  const room = shown.limit < 1e6 ? ` of at most ${number(shown.limit)}` : "";
  const cut = shown.truncated ? `; the last ${number(shown.tokens - shown.limit)} are cut off` : "";
  return `${many(shown.tokens, "token")}${room}${cut}.`;
}

export function rendered(shown, name) {
  const pieces = shown.pieces.map(piece);
  const body = el("div", { class: "rendered", dir: "auto" }, ...pieces);
  const told = el("p", { class: shown.truncated ? "facts warned" : "facts" }, counted(shown));
  return el("div", { class: "shown" }, name ? el("h3", { dir: "auto" }, name) : null, told, body);
}
