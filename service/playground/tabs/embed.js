/** Embed: several pictures as vectors, and how alike each two are. */

import { button, element, modelField } from "../parts/dom.js";
import { examplesFor } from "../parts/examples.js";
import { Picker } from "../parts/pictures.js";

const MOST = 12;

export function open(desk, models) {
  const model = modelField(models, () => { picker.offer(fitting()); again(); });
  const coloured = () => model.entry.inputs[0].shape.at(-1) === 3;
  const fitting = () => examplesFor("embed", models).filter(({ models: of }) => (of ? of.includes(model.value) : coloured()));
  const picker = new Picker(desk, fitting(), (picture) => add(picture), { many: true, legend: "Pictures" });
  const clear = button("Clear", () => { items = []; show(); }, { disabled: true });
  desk.controls.append(model.root, picker.root, clear);
  const about = element("p", { class: "hint", hidden: true }, "Cosine similarity: 1 is the same direction, 0 nothing in common.");
  const result = element("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": "Similarities" });
  desk.stage.append(about, result);
  let items = [];
  let working;
  desk.say("Choose two pictures or more to begin.");

  function add(picture) {
    if (items.length === MOST) {
      desk.say(`${MOST} pictures are compared at most.`);
      return;
    }
    items.push({ picture });
    work();
  }

  /** All pictures anew, with another model. */
  function again() {
    for (const item of items) item.answer = undefined;
    desk.cancel();
    work();
  }

  /** Asks for the embeddings that are missing, one after the other. */
  async function work() {
    if (working) return;
    working = true;
    let item;
    while ((item = items.find(({ answer, failed }) => !answer && !failed))) {
      const name = model.value;
      const answer = await desk.ask({ path: "v1/embed", form: { image: item.picture, model: name } });
      if (name !== model.value) continue;
      if (answer) item.answer = answer.body;
      else item.failed = true;
      items = items.filter(({ failed }) => !failed);
      show();
      if (answer) desk.tell(`${answer.body.dimension} numbers a picture`, answer);
    }
    working = false;
  }

  function show() {
    const done = items.filter(({ answer }) => answer);
    clear.disabled = items.length === 0;
    result.replaceChildren(...(done.length ? [matrix(done)] : []));
    about.hidden = done.length === 0;
    if (!items.length) desk.say("Choose two pictures or more to begin.");
  }

  function matrix(done) {
    const head = done.map(({ picture }) => element("th", { scope: "col" }, thumbnail(picture)));
    return element("table", { class: "matrix" },
      element("thead", {}, element("tr", {}, element("td"), head)),
      element("tbody", {}, done.map((item) => element("tr", {},
        element("th", { scope: "row" }, element("div", { class: "named" }, thumbnail(item.picture), labelled(item), remove(item))),
        done.map((other) => cell(cosine(item.answer.embedding, other.answer.embedding)))))));
  }

  function remove(item) {
    const properties = { class: "remove", "aria-label": `Remove ${named(item.picture)}` };
    return button("×", () => { items = items.filter((other) => other !== item); show(); }, properties);
  }
}

function named(picture) {
  return picture.says ?? picture.name;
}

function thumbnail(picture) {
  return element("img", { src: picture.url, alt: named(picture), title: named(picture), class: picture.width <= 64 ? "pixels" : "" });
}

/** What the model takes a picture for, where it says so. */
function labelled({ answer }) {
  const [likeliest] = answer.labels ?? [];
  return likeliest && element("span", { class: "hint" }, `${likeliest.label}, ${Math.round(100 * likeliest.probability)}\u00a0%`);
}

function cell(similarity) {
  const made = element("td", {}, similarity.toFixed(2));
  made.style.setProperty("--share", `${Math.round(100 * Math.max(0, similarity))}%`);
  return made;
}

function cosine(one, other) {
  const dot = (left, right) => left.reduce((sum, value, index) => sum + value * right[index], 0);
  return dot(one, other) / Math.sqrt(dot(one, one) * dot(other, other));
}
