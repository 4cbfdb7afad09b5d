/** A canvas that is drawn on: strokes and rectangles, each of which can be taken back. */

import { element } from "./dom.js";

export class Drawing {
  /**
   * `width` and `height` are the drawing's own pixels, in which marks are kept; `colour` is that on the screen. `onchange(done)` is called
   * while a stroke grows, and with true once it is done.
   */
  constructor({ width, height, colour, background, label }, onchange) {
    Object.assign(this, { width, height, colour, background, onchange });
    this.brush = 12;
    this.marks = [];
    this.canvas = element("canvas", {
      width, height, role: "img", "aria-label": label,
      onpointerdown: (event) => this.#begin(event),
      onpointermove: (event) => this.#go(event),
      onpointerup: () => this.#end(),
      onpointercancel: () => this.#end(),
    });
    this.stroke = undefined;
    this.draw();
  }

  /** Takes the last mark back. */
  undo() {
    this.marks.pop();
    this.#changed();
  }

  clear() {
    this.marks = [];
    this.#changed();
  }

  /** Adds marks: `{points: [[x, y], …], brush}` or `{rectangle: [x, y, width, height]}`. */
  add(...marks) {
    this.marks.push(...marks);
    this.#changed();
  }

  get empty() {
    return this.marks.length === 0;
  }

  /** A canvas with the marks in one colour on another. */
  copy(colour, background) {
    const canvas = element("canvas", { width: this.width, height: this.height });
    paint(canvas.getContext("2d"), this.marks, colour, background);
    return canvas;
  }

  draw() {
    paint(this.canvas.getContext("2d"), this.marks, this.colour, this.background);
  }

  #changed() {
    this.draw();
    this.onchange(true);
  }

  #at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * this.width / box.width, (event.clientY - box.top) * this.height / box.height];
  }

  #begin(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    this.canvas.setPointerCapture(event.pointerId);
    this.stroke = { points: [this.#at(event)], brush: this.brush };
    this.marks.push(this.stroke);
    this.draw();
  }

  #go(event) {
    if (!this.stroke) return;
    for (const one of event.getCoalescedEvents?.() ?? [event]) this.stroke.points.push(this.#at(one));
    this.draw();
    this.onchange(false);
  }

  #end() {
    if (!this.stroke) return;
    this.stroke = undefined;
    this.onchange(true);
  }
}

function paint(context, marks, colour, background) {
  const { width, height } = context.canvas;
  context.clearRect(0, 0, width, height);
  if (background) {
    context.fillStyle = background;
    context.fillRect(0, 0, width, height);
  }
  context.strokeStyle = context.fillStyle = colour;
  context.lineCap = context.lineJoin = "round";
  for (const { points, brush, rectangle } of marks) {
    if (rectangle) {
      context.fillRect(...rectangle);
      continue;
    }
    context.lineWidth = brush;
    context.beginPath();
    context.moveTo(...points[0]);
    for (const point of points) context.lineTo(...point);
    context.stroke();
  }
}
