/** Pictures: chosen, dropped, clicked among the examples, or drawn; and how they are shown. */

import { element, fresh } from "./dom.js";
import { HOME, load } from "./requests.js";

/**
 * A picture is `{name, blob, url, width, height}`, with `from` (its address) if it is an example, `made` if this page drew it. Width and
 * height are missing where the browser cannot show it; the server may read it nevertheless.
 */
export async function pictureOf(blob, name, more = {}) {
  const url = URL.createObjectURL(blob);
  const image = element("img", { src: url });
  const size = await image.decode().then(() => ({ width: image.naturalWidth, height: image.naturalHeight }), () => ({}));
  return { name, blob, url, ...size, ...more };
}

/** An image element, large enough to be looked at: pixels of small pictures stay square. */
export function shown({ url, width, height }, alt, properties = {}) {
  return element("img", { src: url, alt, width, height, class: width <= 64 ? "pixels" : "", ...properties });
}

/** The address of a PNG in base64, as JSON answers have them. */
export function png(base64) {
  return `data:image/png;base64,${base64}`;
}

/** A line with which a picture can be saved. */
export function saved({ url, name }, more = "") {
  return element("p", { class: "hint" }, element("a", { href: url, download: name }, "Save the picture"), ` ${more}`);
}

/** A canvas as a picture. */
export async function drawn(canvas, name) {
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  return { name, blob, get url() { return URL.createObjectURL(blob); }, width: canvas.width, height: canvas.height, made: true };
}

/**
 * Where a picture is chosen: examples, a file, or a file dropped on the desk.
 *
 * Examples are `{file, says, models}`; see examples.js. `onpick(picture, example)` is called with each picture chosen; once it is done, the
 * result is brought into view, unless more pictures are to follow.
 */
export class Picker {
  constructor(desk, examples, onpick, { many = false, legend = "Picture" } = {}) {
    Object.assign(this, { desk, onpick, many });
    const id = fresh("file");
    this.file = element("input", {
      type: "file", id, accept: "image/*,.tif,.tiff,.bmp", multiple: many, onchange: () => this.#take(this.file.files),
    });
    this.list = element("div", { class: "examples" });
    this.root = element("fieldset", { class: "picker" },
      element("legend", {}, legend),
      this.list,
      element("div", { class: "file" }, this.file, element("label", { htmlFor: id }, many ? "Choose files" : "Choose a file"),
        element("span", { class: "hint" }, "or drop ", many ? "them" : "it", " here")));
    this.offer(examples);
    desk.root.addEventListener("dragover", (event) => { event.preventDefault(); desk.root.classList.add("dropping"); });
    desk.root.addEventListener("dragleave", () => desk.root.classList.remove("dropping"));
    desk.root.addEventListener("drop", (event) => {
      event.preventDefault();
      desk.root.classList.remove("dropping");
      this.#take(many ? event.dataTransfer.files : [...event.dataTransfer.files].slice(0, 1));
    });
  }

  /** Shows these examples; the one that was chosen stays so, if it is among them. */
  offer(examples) {
    this.examples = examples;
    this.list.hidden = examples.length === 0;
    this.list.replaceChildren(...examples.map((example) => element("button", {
      type: "button", title: example.says, onclick: () => this.#example(example),
    }, element("img", { src: from(example), alt: example.says, loading: "lazy", class: example.tiny ? "pixels" : "" }))));
    this.mark(examples.includes(this.chosen) ? this.chosen : undefined);
  }

  /** Marks an example as the one that was chosen, or none. */
  mark(chosen) {
    this.chosen = chosen;
    this.examples.forEach((example, index) => this.list.children[index].setAttribute("aria-pressed", example === chosen));
  }

  async #example(example) {
    this.mark(example);
    const blob = await load(path(example)).catch((problem) => this.#failed(problem));
    if (!blob || (!this.many && this.chosen !== example)) return;
    await this.#pick(await pictureOf(blob, example.file, { from: from(example), says: example.says }), example);
  }

  async #take(files) {
    this.mark();
    const chosen = [...files];
    this.file.value = "";  // so that the same file can be chosen again
    for (const file of chosen) await this.#pick(await pictureOf(file, file.name));
  }

  async #pick(picture, example) {
    await this.onpick(picture, example);
    if (!this.many) this.desk.bring();
  }

  #failed(problem) {
    this.mark();
    this.desk.fail(problem);
    this.desk.bring();
  }
}

function path(example) {
  return `playground/examples/${example.file}`;
}

function from(example) {
  return new URL(path(example), HOME).href;
}
