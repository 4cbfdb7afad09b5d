/** Pictures: chosen, dropped, clicked among the examples, or drawn; and how they are shown. */

import { element, fresh } from "./dom.js";
import { HOME } from "./requests.js";

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
 * Examples are `{file, says, models}`; see examples.js. `onpick(picture, example)` is called with each picture chosen.
 */
export class Picker {
  constructor(desk, examples, onpick, { many = false, legend = "Picture" } = {}) {
    this.onpick = onpick;
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

  /** Shows these examples. */
  offer(examples) {
    this.list.hidden = examples.length === 0;
    this.list.replaceChildren(...examples.map((example) => element("button", {
      type: "button", title: example.says, onclick: (event) => this.#example(example, event.currentTarget),
    }, element("img", { src: from(example), alt: example.says, loading: "lazy", class: example.tiny ? "pixels" : "" }))));
  }

  async #example(example, chosen) {
    this.#mark(chosen);
    const blob = await (await fetch(from(example))).blob();
    this.onpick(await pictureOf(blob, example.file, { from: from(example), says: example.says }), example);
  }

  async #take(files) {
    this.#mark();
    for (const file of files) this.onpick(await pictureOf(file, file.name));
    this.file.value = "";
  }

  #mark(chosen) {
    for (const other of this.list.children) other.setAttribute("aria-pressed", other === chosen);
  }
}

function from(example) {
  return new URL(`playground/examples/${example.file}`, HOME).href;
}
