/** A latent space of two dimensions as a map: what the model draws at each place, and a point that can be moved about. */

import { element, sliderField } from "./dom.js";

/** Pictures along each side of the map. */
const SIDE = 12;

export class LatentMap {
  /** `onmove([across, up])` is called with every place that the point is moved to. */
  constructor(onmove) {
    this.onmove = onmove;
    this.canvas = element("canvas", { class: "pixels" });
    this.point = element("div", { class: "point" });
    this.square = element("div", {
      class: "map", tabIndex: 0, role: "application",
      "aria-label": "Map of the latent space. Arrow keys move the point, with Shift further.",
      onpointerdown: (event) => this.#grasp(event),
      onpointermove: (event) => { if (this.square.hasPointerCapture(event.pointerId)) this.#drag(event); },
      onkeydown: (event) => this.#key(event),
    }, this.canvas, this.point);
    const scale = { min: -3, max: 3, step: 0.01, value: 0, shown: (value) => value.toFixed(2) };
    this.fields = ["Across (latent 1)", "Up (latent 2)"].map((label) => (
      sliderField(label, scale, () => this.#moved(this.fields.map((field) => field.value)))));
    this.root = element("div", { class: "mapped" }, this.square, this.fields.map((field) => field.root));
  }

  /** Spans the map over the places where these latents lie, and gives those whose pictures it wants, row by row from the top. */
  span(latents) {
    this.ranges = [0, 1].map((axis) => {
      const values = latents.map((latent) => latent[axis]).sort((one, other) => one - other);
      return [Math.floor(values[0]), Math.ceil(values.at(-1))];
    });
    this.fields.forEach(({ control }, axis) => { [control.min, control.max] = this.ranges[axis]; });
    const step = ([low, high], index) => low + (high - low) * (index + 0.5) / SIDE;
    return Array.from({ length: SIDE * SIDE }, (_, index) => [
      step(this.ranges[0], index % SIDE), step(this.ranges[1], SIDE - 1 - Math.floor(index / SIDE)),
    ].map(rounded));
  }

  /** Paints a picture (its address) at its number in the order that `span` gave. */
  async paint(number, address) {
    const image = element("img", { src: address });
    await image.decode();
    if (number === 0) Object.assign(this.canvas, { width: SIDE * image.naturalWidth, height: SIDE * image.naturalHeight });
    const [row, column] = [Math.floor(number / SIDE), number % SIDE];
    this.canvas.getContext("2d").drawImage(image, column * image.naturalWidth, row * image.naturalHeight);
  }

  /** Puts the point somewhere, without telling. */
  place(values) {
    this.values = values.map((value, axis) => rounded(Math.min(this.ranges[axis][1], Math.max(this.ranges[axis][0], value))));
    this.fields.forEach((field, axis) => { field.value = this.values[axis]; });
    const share = (axis) => 100 * (this.values[axis] - this.ranges[axis][0]) / (this.ranges[axis][1] - this.ranges[axis][0]);
    this.square.style.setProperty("--across", `${share(0)}%`);
    this.square.style.setProperty("--up", `${share(1)}%`);
  }

  #moved(values) {
    if (!this.ranges) return;
    this.place(values);
    this.onmove(this.values);
  }

  #grasp(event) {
    if (event.button !== 0) return;
    this.square.setPointerCapture(event.pointerId);
    this.#drag(event);
  }

  #drag(event) {
    if (!this.ranges) return;
    const box = this.square.getBoundingClientRect();
    const shares = [(event.clientX - box.left) / box.width, 1 - (event.clientY - box.top) / box.height];
    this.#moved(shares.map((share, axis) => this.ranges[axis][0] + share * (this.ranges[axis][1] - this.ranges[axis][0])));
  }

  #key(event) {
    const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!direction || !this.ranges) return;
    event.preventDefault();
    const share = event.shiftKey ? 0.1 : 0.02;
    this.#moved(this.values.map((value, axis) => value + direction[axis] * share * (this.ranges[axis][1] - this.ranges[axis][0])));
  }
}

function rounded(value) {
  return Math.round(value * 100) / 100;
}
