/** How far a request is, while it is in work. */

import { element } from "./dom.js";
import { get } from "./requests.js";

/** Milliseconds before it is first asked for, and between one time and the next. */
const EVERY = 250;

export class Progress {
  constructor() {
    this.bar = element("progress", { max: 1, "aria-label": "Progress" });
    this.text = element("span", { class: "hint" });
    this.root = element("div", { class: "progress", hidden: true }, this.bar, this.text);
  }

  /** Shows the progress of the request with an id until its answer is there, which it gives. */
  async follow(id, answer) {
    let waiting = true;
    const over = answer.finally(() => {
      waiting = false;
      if (this.newest === id) this.root.hidden = true;
    });
    this.newest = id;
    while (waiting) {
      await Promise.race([over.catch(() => {}), new Promise((done) => setTimeout(done, EVERY))]);
      if (waiting && this.newest === id) await this.#look(id);
    }
    return over;
  }

  async #look(id) {
    const work = await get(`v1/requests/${id}`).catch(() => undefined);  // it may just have ended
    if (!work || this.newest !== id) return;
    this.root.hidden = false;
    if (work.state === "running" && work.total) this.bar.value = work.done / work.total;
    else this.bar.removeAttribute("value");
    this.text.textContent = {
      reading: "Reading the picture",
      queued: `${work.position} before it`,
      running: `${work.done} of ${work.total} tiles`,
      finishing: "Finishing",
    }[work.state];
  }
}
