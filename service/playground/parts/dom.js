/** Builders of elements and fields, so that a tab's module reads like the page that it makes. */

import { get } from "./requests.js";

/** An element with properties or attributes, listeners (`onclick` and the like) and children; those that are undefined are left out. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== undefined));
  return made;
}

let ids = 0;

/** An id that no other element has. */
export function fresh(word) {
  ids += 1;
  return `${word}-${ids}`;
}

export function button(text, onclick, properties = {}) {
  return element("button", { type: "button", onclick, ...properties }, text);
}

/** A labelled control. `value` reads and writes it; writing tells nobody. */
class Field {
  constructor(label, control, hint) {
    control.id = fresh("field");
    this.control = control;
    this.label = element("label", { htmlFor: control.id }, label);
    this.root = element("div", { class: "field" }, this.label, control);
    if (hint) {
      this.hint = element("p", { class: "hint", id: fresh("hint") }, hint);
      control.setAttribute("aria-describedby", this.hint.id);
      this.root.append(this.hint);
    }
  }

  get value() {
    return this.control.value;
  }

  set value(value) {
    this.control.value = value;
  }
}

/** A line of text. */
export function textField(label, properties, oninput, hint) {
  return new Field(label, element("input", { type: "text", oninput, ...properties }), hint);
}

/** A whole number between two others; whatever is typed, its `value` is one. */
class NumberField extends Field {
  constructor(label, { min, max, value }, onchange, hint) {
    const listen = () => this.#changed(onchange);
    super(label, element("input", { type: "number", inputMode: "numeric", min, max, step: 1, value, onchange: listen }), hint);
  }

  #changed(onchange) {
    this.value = this.value;
    onchange();
  }

  get value() {
    const { min, max, value } = this.control;
    return Math.min(Number(max), Math.max(Number(min), Math.round(Number(value) || 0)));
  }

  set value(value) {
    this.control.value = value;
  }
}

export function numberField(...options) {
  return new NumberField(...options);
}

const LARGEST_SEED = 2 ** 32 - 1;

/** A seed, and a button for another one. */
export function seedField(onchange, label = "Seed", value = 7) {
  const field = numberField(label, { min: 0, max: LARGEST_SEED, value }, onchange);
  const another = button("Another", () => {
    field.value = Math.floor(Math.random() * (LARGEST_SEED + 1));
    onchange();
  }, { "aria-label": `Another ${label.toLowerCase()}` });
  const beside = element("div", { class: "beside" });
  field.control.replaceWith(beside);
  beside.append(field.control, another);
  return field;
}

/** A number on a scale, written beside its label. */
class SliderField extends Field {
  constructor(label, { min, max, step, value, shown = String }, oninput, hint) {
    const listen = () => {
      this.#show();
      oninput(this.value);
    };
    super(label, element("input", { type: "range", min, max, step, value, oninput: listen }), hint);
    this.shown = shown;
    this.output = element("output", { htmlFor: this.control.id });
    this.label.after(this.output);
    this.root.classList.add("slider");
    this.#show();
  }

  #show() {
    this.output.textContent = this.shown(this.value);
    this.control.setAttribute("aria-valuetext", this.output.textContent);
  }

  get value() {
    return Number(this.control.value);
  }

  set value(value) {
    this.control.value = value;
    this.#show();
  }
}

export function sliderField(...options) {
  return new SliderField(...options);
}

/** How far noise is scaled. */
export function truncationField(oninput) {
  return sliderField("Truncation", { min: 0, max: 1.5, step: 0.05, value: 1, shown: (value) => value.toFixed(2) }, oninput,
    "Less: more typical pictures. More: odder ones.");
}

/** One of several, from a list. Options are [value, text]. */
export function selectField(label, options, onchange, hint) {
  const field = new Field(label, element("select", { onchange }), hint);
  field.offer = (offered) => field.control.replaceChildren(...offered.map(([value, text]) => element("option", { value }, text)));
  field.offer(options);
  return field;
}

const KINDS = { google: "google (emoji)", twitter: "twitter (emoji)" };

/** A kind of pictures, and what it is where its name does not say so. */
export function kind(name) {
  return KINDS[name] ?? name;
}

/** The model that is to serve, what it says of itself and, if one wants to know, what it is not good for. */
export function modelField(models, onchange) {
  let offered = models;
  const field = selectField("Model", [], () => { describe(); onchange(); }, " ");
  const limits = element("div", { class: "hint" });
  const more = element("details", { class: "hint", ontoggle: () => more.open && tell(limits, field.value) },
    element("summary", {}, "What it is not good for"), limits);
  field.root.append(more);
  const describe = () => {
    const said = [field.entry?.title, field.entry?.description].filter(Boolean).join(". ");
    field.hint.textContent = said.replace(/`([^`]+)`/g, (_, name) => kind(name));
    more.open = false;
  };
  Object.defineProperty(field, "entry", { get: () => offered.find(({ name }) => name === field.value) });
  field.offers = (name) => offered.some((entry) => entry.name === name);
  /** Chooses a model by its name, if it is offered. */
  field.choose = (name) => {
    if (field.offers(name)) field.value = name;
    describe();
  };
  /** Offers some of the models only; the one that was chosen stays so, if it is among them. */
  field.limit = (some) => {
    const before = field.value;
    offered = some;
    field.offer(some.map(({ name }) => [name, name]));
    field.choose(before);
  };
  field.limit(models);
  return field;
}

async function tell(where, name) {
  const { limits, misuse } = await get(`v1/models/${name}`).catch(({ message }) => ({ limits: message, misuse: "" }));
  where.replaceChildren(...[limits, misuse].filter(Boolean).map((text) => element("p", {}, text)));
}

/** One of few, all of them seen. Options are [value, text]. */
export function choiceField(legend, options, onchange) {
  const name = fresh("choice");
  const inputs = options.map(([value], index) => element("input", {
    type: "radio", name, value, checked: index === 0, onchange: () => onchange(value),
  }));
  const labels = options.map(([, text], index) => element("label", {}, inputs[index], element("span", {}, text)));
  return {
    root: element("fieldset", { class: "choice" }, element("legend", {}, legend), element("div", { class: "options" }, labels)),
    get value() {
      return inputs.find((input) => input.checked).value;
    },
  };
}
