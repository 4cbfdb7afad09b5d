/** Sliders over the numbers that a picture is drawn from, and the picture as it becomes. */

import { button, element } from "./dom.js";
import { png } from "./pictures.js";

/** How code asks for what is generated: as one picture, where the page wants each by itself. */
export const SHEET = { accept: "image/png", saves: "generated.png" };

/** Sliders that are seen at once; the others are folded away. */
const SEEN = 16;

/** Below a result: `open` it with a picture's latents; the pictures that follow come from /v1/generate. */
export class Latents {
  constructor(desk) {
    this.desk = desk;
    this.picture = element("img", { alt: "", class: "pixels" });
    this.sliders = element("div", { class: "sliders" });
    this.root = element("section", { class: "latents", hidden: true });
  }

  /** `latent` is what a picture was drawn from by a model, `image` the address of that picture, `of` what it is in words. */
  open(model, latent, image, of) {
    Object.assign(this, { model, first: latent, image });
    this.values = latent.map((value) => Math.round(value * 100) / 100);
    this.picture.src = image;
    this.picture.alt = `${of}, as its numbers draw it`;
    const reach = Math.ceil(Math.max(3, ...latent.map(Math.abs)));
    const scale = { type: "range", min: -reach, max: reach, step: 0.01 };
    this.inputs = this.values.map((value, index) => element("input", {
      ...scale, value, "aria-label": `Latent ${index + 1}`, oninput: (event) => this.#turn(index, event),
    }));
    this.outputs = this.values.map((value) => element("output", {}, value.toFixed(2)));
    const rows = this.inputs.map((input, index) => (
      element("div", { class: "latent" }, element("span", {}, index + 1), input, this.outputs[index])));
    this.sliders.replaceChildren(...rows.slice(0, SEEN));
    const others = element("div", { class: "sliders" }, rows.slice(SEEN));
    const more = rows.length > SEEN ? element("details", {}, element("summary", {}, `The other ${rows.length - SEEN}`), others) : undefined;
    this.root.replaceChildren(
      element("h3", {}, `The ${latent.length} numbers of ${of}`),
      element("div", { class: "turning" },
        element("div", { class: "turned" }, this.picture, button("As it was", () => this.#reset())),
        element("div", {}, this.sliders, more)));
    this.root.hidden = false;
  }

  close() {
    this.root.hidden = true;
  }

  #turn(index, { target }) {
    this.values[index] = Number(target.value);
    this.outputs[index].textContent = this.values[index].toFixed(2);
    this.#draw();
  }

  #reset() {
    this.values = this.first.map((value) => Math.round(value * 100) / 100);
    this.values.forEach((value, index) => {
      this.inputs[index].value = value;
      this.outputs[index].textContent = value.toFixed(2);
    });
    this.#draw();
  }

  async #draw() {
    const answer = await this.desk.ask({ path: "v1/generate", json: { model: this.model, latents: [[...this.values]] }, code: SHEET });
    if (!answer) return;
    this.picture.src = png(answer.body.images[0]);
    this.desk.tell("Drawn from the numbers above", answer);
  }
}
