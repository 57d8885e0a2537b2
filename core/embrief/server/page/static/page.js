// The page: what can be asked, asking, and what is seen of the answer.

import { Problem, ask, key } from "./api.js";
import { byId, el, many, number, sentence, show } from "./dom.js";
import { QUESTION, TEXTS } from "./example.js";
import { Chart, explain } from "./map.js";
import { Pictures, encoded } from "./pictures.js";
import { rendered } from "./prompt.js";
import { Pair, nameOf } from "./ranking.js";

const PASTED = "";
const KINDS = { document: "The text", question: "The question", pair: "For the reranker" };

const state = {
  choices: null,
  asked: null, // what was sent
  found: null, // what came back
  view: 0,
  document: null,
  tab: "document",
  asking: null, // AbortController
  reading: null,
  prompts: new Map(),
};

const pictures = new Pictures();
const pair = new Pair(byId("pair"), pictures, (document) => select(document), () => byId("prompt").focus());
const chart = new Chart(byId("map"), (document) => pair.select(document));

// What can be asked.

function options(select, items, chosen) {
  select.replaceChildren(...items.map(([value, name]) => el("option", { value, selected: value === chosen }, name)));
}

async function start() {
  try {
    state.choices = await ask("api/choices");
  } catch (error) {
    if (error.status === 401) wantKey(key.get() === null ? null : error.message);
    else complain(error);
    return false;
  }
  const { collections, models, rerankers } = state.choices;
  const names = collections.map((item) => item.name);
  const twice = (name) => names.indexOf(name) !== names.lastIndexOf(name);
  const listed = collections.map((item) => [item.id, twice(item.name) ? `${item.name} (${item.store})` : item.name]);
  const can = models.length ? [[PASTED, "texts that I paste"]] : [];
  options(byId("source"), [...listed, ...can]);
  options(byId("model"), models.map((item) => [item.name, item.name]));
  options(byId("reranker"), [...rerankers.map((item) => [item.name, item.name]), ["", "none"]]);
  show(byId("key-button"), key.get() !== null);
  changed();
  clear();
  const none = "There is no collection here for you. Paste texts, or make one with `embrief index`.";
  tell(collections.length ? "" : none);
  return true;
}

const collection = () => state.choices?.collections.find((item) => item.id === byId("source").value);

function pasted() {
  return byId("texts").value.split(/\n\s*\n/).map((text) => text.trim()).filter(Boolean);
}

function changed() {
  const own = collection();
  show(byId("paste"), !own);
  show(byId("model-field"), !own && byId("model").options.length > 1);
  const count = pasted().length;
  byId("texts-told").textContent = count ? many(count, "text") : "No text yet";
  const model = state.choices?.models.find((item) => item.name === byId("model").value);
  const reranker = state.choices?.rerankers.find((item) => item.name === byId("reranker").value);
  // Of a folder or a name of the configuration nobody knows before its model is loaded; the server says it then.
  show(byId("picture-field"), own ? own.takes_pictures !== false : Boolean(model?.modalities.includes("image")));
  const usual = (!own && model?.instruction) || reranker?.instruction;
  byId("instruction").placeholder = usual || "The model's own";
}

function compareTwo(on) {
  show(byId("second-field"), on);
  byId("compare").setAttribute("aria-expanded", String(on));
  byId("compare").textContent = on ? "Only one" : "Compare two";
  byId("first-name").textContent = on ? "Instruction A" : "Instruction";
  if (on) byId("second").focus();
}

// Asking.

function tell(text) {
  byId("told").textContent = text;
}

function clear() {
  show(byId("problem"), false);
  byId("problem").textContent = "";
}

function complain(error) {
  byId("problem").textContent = error instanceof Problem ? error.message : sentence(`the page failed: ${error.message}`);
  show(byId("problem"), true);
  tell("");
}

function working(on) {
  document.body.classList.toggle("busy", on);
  byId("results").setAttribute("aria-busy", String(on));
  byId("go").textContent = on ? "Asking" : "Ask";
}

function chosen() {
  return byId("picture-field").hidden ? null : (byId("picture").files[0] ?? null);
}

async function request() {
  const question = byId("question").value;
  const file = chosen();
  if (!question.trim() && !file) throw new Problem("Write a question first.");
  const instructions = [byId("instruction").value.trim() || null];
  if (!byId("second-field").hidden) instructions.push(byId("second").value.trim() || null);
  const said = { question, instructions, count: Number(byId("count").value) };
  said.reranker = byId("reranker").value || null;
  if (file) said.image = await encoded(file);
  const own = collection();
  if (own) return { ...said, collection: own.id };
  const texts = pasted();
  if (!texts.length) throw new Problem("Paste a text first, or take the example.");
  return { ...said, texts, model: byId("model").value };
}

async function submit() {
  state.asking?.abort();
  clear();
  let said;
  try {
    if (state.choices === null && !(await start())) return;
    said = await request();
  } catch (error) {
    complain(error);
    byId(byId("question").value.trim() ? "texts" : "question").focus();
    return;
  }
  const asking = (state.asking = new AbortController());
  working(true);
  tell("Asking.");
  try {
    const found = await ask("api/search", said, asking.signal);
    if (asking !== state.asking) return;
    pictures.begin(said.collection ?? null);
    Object.assign(state, { asked: said, found, view: 0, document: null, prompts: new Map() });
    render();
  } catch (error) {
    if (asking !== state.asking || error.name === "AbortError") return;
    if (error.status === 401) wantKey(error.message);
    else complain(error);
  } finally {
    if (asking === state.asking) {
      state.asking = null;
      working(false);
    }
  }
}

function stop() {
  if (!state.asking) return false;
  state.asking.abort();
  state.asking = null;
  working(false);
  tell("Stopped.");
  return true;
}

// What is seen.

function rankings() {
  const { found } = state;
  const two = found.sides.length > 1;
  const made = {};
  found.sides.forEach((side, index) => {
    const letter = "AB"[index];
    const of = two ? `${letter}: ${side.instruction ?? "the model's own"}` : null;
    const [near, judged] = [`nearest${letter}`, `reranked${letter}`];
    const model = of ?? found.model.name;
    made[near] = { id: near, name: "By vector", told: model, places: side.nearest, side: index };
    if (side.reranked) {
      const told = of ?? found.reranker.name;
      made[judged] = { id: judged, name: "After the reranker", told, places: side.reranked, side: index };
    }
  });
  return made;
}

function views(made) {
  const two = state.found.sides.length > 1;
  const judged = "rerankedA" in made;
  if (!two) return [{ name: "", left: made.nearestA, right: made.rerankedA }];
  const found = [{ name: "A and B by vector", left: made.nearestA, right: made.nearestB }];
  if (judged) {
    found.unshift({ name: "A and B after the reranker", left: made.rerankedA, right: made.rerankedB });
    found.push({ name: "A alone", left: made.nearestA, right: made.rerankedA });
    found.push({ name: "B alone", left: made.nearestB, right: made.rerankedB });
  }
  return found;
}

function render() {
  const { found } = state;
  const all = views(rankings());
  const { left, right } = all[state.view];
  show(byId("results"), found.documents.length > 0);
  show(byId("views"), all.length > 1);
  byId("views").replaceChildren(
    ...all.map(({ name }, index) =>
      el("button", { type: "button", "aria-pressed": String(index === state.view), "data-view": index }, name),
    ),
  );
  pair.render(left, right, found.documents);
  chart.render(found, right ?? left);
  byId("map-told").textContent = `${explain(found)} Numbers are places ${(right ?? left).name.toLowerCase()}.`;
  report();
  const first = state.document ?? (right ?? left).places[0]?.document;
  state.document = null;
  if (first !== undefined) pair.select(first);
}

function report() {
  const { found } = state;
  if (!found.documents.length) {
    tell("Nothing was found.");
    return;
  }
  const said = [`${many(found.documents.length, "text")} in ${number(found.seconds.search, 2)} s`];
  if (found.reranker) said.push(`reranked in ${number(found.seconds.rerank, 2)} s`);
  const cut = found.documents.filter((item) => item.truncated).length;
  const notes = [`${said.join(", ")}.`];
  if (cut) notes.push(`${many(cut, "text")} ${cut === 1 ? "is" : "are"} longer than ${found.model.name} reads.`);
  if (found.sides.some((side) => side.truncated)) notes.push("The question is longer than the model reads.");
  if (found.not_asked) notes.push(`${found.not_asked} reads texts only, and was not asked about pictures.`);
  if (found.sides.some((side) => side.instruction !== null)) {
    if (!found.model.instructed) notes.push(`${found.model.name} has no place for an instruction.`);
    if (found.reranker?.instructed === false) notes.push(`${found.reranker.name} has no place for an instruction.`);
  }
  tell(notes.join(" "));
}

// One text.

function select(document) {
  if (state.document === document) return;
  state.document = document;
  chart.select(document);
  detail();
}

const STATES = { changed: "The file has changed since: this is the old text.", gone: "The file is no longer there." };

function detail() {
  const text = state.found.documents[state.document];
  byId("detail-name").textContent = nameOf(text);
  const facts = [text.title && text.title !== nameOf(text) ? text.title : null, STATES[text.state]];
  byId("detail-facts").textContent = facts.filter(Boolean).join(" · ");
  show(byId("tabs").parentElement, !text.picture);
  if (text.picture) {
    state.reading?.abort();
    byId("prompt").removeAttribute("aria-labelledby");
    byId("prompt").replaceChildren(pictures.show(text.picture, "large"));
    return;
  }
  // What is read of a question with a picture is not shown in words.
  const kinds = Object.keys(KINDS).filter(
    (kind) => kind === "document" || (!state.asked.image && (kind !== "pair" || state.found.reranker)),
  );
  if (!kinds.includes(state.tab)) state.tab = "document";
  byId("tabs").replaceChildren(
    ...kinds.map((kind) =>
      el(
        "button",
        {
          type: "button",
          role: "tab",
          id: `tab-${kind}`,
          "data-tab": kind,
          "aria-selected": String(kind === state.tab),
          "aria-controls": "prompt",
          tabindex: kind === state.tab ? "0" : "-1",
        },
        KINDS[kind],
      ),
    ),
  );
  byId("prompt").setAttribute("aria-labelledby", `tab-${state.tab}`);
  void prompt(text);
}

async function prompt(text) {
  const { asked, found, document } = state;
  state.reading?.abort();
  const made = state.prompts.get(document);
  if (made) {
    drawPrompt(made);
    return;
  }
  byId("prompt").replaceChildren(el("div", { class: "rendered waiting", dir: "auto" }, text.text));
  const reading = (state.reading = new AbortController());
  const body = {
    // Beside a picture only the text is shown, and the route wants a question.
    question: asked.image ? "-" : asked.question,
    text: text.text,
    title: text.read_title,
    reranker: asked.image || !found.reranker ? null : asked.reranker,
    collection: asked.collection,
    model: asked.model,
  };
  try {
    // Arrow keys run over many texts: only where they stop is asked for.
    await new Promise((done) => setTimeout(done, 60));
    if (reading.signal.aborted) return;
    const sides = await Promise.all(
      found.sides.map((side) => ask("api/prompts", { ...body, instruction: side.instruction }, reading.signal)),
    );
    if (found !== state.found) return;
    state.prompts.set(document, sides);
    if (document === state.document) drawPrompt(sides);
  } catch (error) {
    if (error.name === "AbortError" || reading !== state.reading) return;
    if (error.status === 401) wantKey(error.message);
    byId("prompt").replaceChildren(el("p", { class: "problem" }, error.message));
  }
}

function drawPrompt(sides) {
  const two = sides.length > 1 && state.tab !== "document";
  const shown = (two ? sides : sides.slice(0, 1)).map((side, index) =>
    rendered(side[state.tab], two ? `Instruction ${"AB"[index]}` : null),
  );
  byId("prompt").replaceChildren(...shown);
  byId("prompt").scrollTop = 0;
}

// Keys of callers.

function wantKey(problem) {
  key.forget();
  show(byId("key-button"), true);
  show(byId("key-forget"), false);
  byId("key-problem").textContent = problem ?? "";
  show(byId("key-problem"), Boolean(problem));
  byId("key").value = "";
  if (!byId("key-dialog").open) byId("key-dialog").showModal();
  byId("key").focus();
  tell("A key is needed.");
}

function openKey() {
  show(byId("key-problem"), false);
  show(byId("key-forget"), key.get() !== null);
  byId("key-dialog").showModal();
  byId("key").focus();
}

async function useKey() {
  const given = byId("key").value.trim();
  if (!given) return;
  key.set(given);
  byId("key").value = "";
  if (await start()) {
    byId("key-dialog").close();
    if (!byId("told").textContent) tell("The key is known.");
    byId("question").focus();
  }
}

function forgetKey() {
  stop();
  key.forget();
  Object.assign(state, { choices: null, found: null, asked: null, document: null });
  state.prompts.clear();
  show(byId("results"), false);
  for (const id of ["pair", "map", "prompt"]) byId(id).replaceChildren();
  pictures.begin(null);
  byId("picture").value = "";
  byId("key-dialog").close();
  void start();
}

// Who does what.

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  void submit();
});
byId("ask").addEventListener("change", changed);
byId("texts").addEventListener("input", changed);
byId("compare").addEventListener("click", () => compareTwo(byId("second-field").hidden));
byId("example").addEventListener("click", () => {
  byId("texts").value = TEXTS;
  if (!byId("question").value.trim()) byId("question").value = QUESTION;
  changed();
  byId("question").focus();
});
byId("views").addEventListener("click", (event) => {
  const view = event.target.closest("button")?.dataset.view;
  if (view === undefined) return;
  state.view = Number(view);
  render();
  byId("views").children[state.view].focus();
});
byId("tabs").addEventListener("click", (event) => openTab(event.target.closest("button")?.dataset.tab));
byId("tabs").addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const kinds = [...byId("tabs").children].map((tab) => tab.dataset.tab);
  openTab(kinds[(kinds.indexOf(state.tab) + step + kinds.length) % kinds.length]);
});
byId("show-tokens").addEventListener("change", (event) => {
  byId("prompt").classList.toggle("whole", !event.target.checked);
});
byId("key-button").addEventListener("click", openKey);
byId("key-forget").addEventListener("click", forgetKey);
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  void useKey();
});

function openTab(tab) {
  if (!tab) return;
  state.tab = tab;
  detail();
  byId(`tab-${tab}`).focus();
}

document.addEventListener("keydown", (event) => {
  if (byId("key-dialog").open) return;
  const typing = event.target.matches("input:not([type=checkbox]), textarea, select");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    byId("question").focus();
    byId("question").select();
  } else if (event.key === "ArrowDown" && event.target === byId("question") && !byId("results").hidden) {
    event.preventDefault();
    byId("pair").querySelector(".ranking:last-child .row[tabindex='0']")?.focus();
  } else if (event.key === "Escape") {
    if (stop()) return;
    if (!byId("problem").hidden) clear();
    else byId("question").focus();
  }
});

void start();
byId("question").focus();
