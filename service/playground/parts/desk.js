/** What every tab has: controls on one side, the result on the other; what happened, what went wrong, and the call as code. */

import { Code } from "./code.js";
import { element } from "./dom.js";
import { pictureOf } from "./pictures.js";
import { send } from "./requests.js";

/** Milliseconds that a call which is under way is given before a newer one ends it: while something is dragged, pictures keep coming. */
const PATIENCE = 120;
/** Milliseconds without anything new after which it is said what happened, so that nobody is told of each step of a slider. */
const PAUSE = 150;

export class Desk {
  constructor(panel, title, about) {
    this.controls = element("div", { class: "controls" });
    this.stage = element("div", { class: "stage" });
    this.status = element("p", { class: "status", role: "status" });
    this.alert = element("div", { class: "problem", role: "alert" });
    this.code = new Code();
    this.results = element("div", { class: "results" }, this.alert, this.stage, this.status, this.code.root);
    this.root = element("div", { class: "desk" }, this.controls, this.results);
    panel.replaceChildren(element("div", { class: "about" }, element("h2", {}, title), element("p", {}, about)), this.root);
    this.flight = undefined;
    this.newest = undefined;
  }

  /** Says, instead of all else, why there is nothing to be done here. */
  nothing(why) {
    this.root.replaceWith(element("p", { class: "empty" }, why));
  }

  /**
   * Sends a call, one at a time: a newer one ends it. Gives the answer, or nothing where there was none; then the reason has been told.
   *
   * Where the answer is a picture, it has that as `picture`, named as the call `saves` it. `id` is that of the request; `quiet` keeps what
   * only prepares something else out of the code below, and what the call has as `code` stands there in place of its own.
   */
  async ask(call, { id, quiet = false } = {}) {
    this.newest = call;
    while (this.flight) {
      const left = PATIENCE - (performance.now() - this.flight.since);
      if (left <= 0) this.flight.aborter.abort();
      await Promise.race([this.flight.over, ...(left > 0 ? [new Promise((done) => setTimeout(done, left))] : [])]);
      if (this.newest !== call) return undefined;
    }
    this.mend();
    this.say("Working …");
    const aborter = new AbortController();
    const sent = send(call, aborter.signal, id).then((answer) => seen(answer, call.saves));
    const flight = { aborter, since: performance.now(), over: sent.then(() => {}, () => {}).then(() => { this.flight = undefined; }) };
    this.flight = flight;
    this.busy(true);
    try {
      const answer = await sent;
      if (!quiet) this.code.show({ ...call, ...call.code });
      return answer;
    } catch (error) {
      if (error.name !== "AbortError") this.fail(error);
      return undefined;
    } finally {
      await flight.over;
      if (!this.flight) this.busy(false);
    }
  }

  /** Ends what is under way. */
  cancel() {
    this.newest = undefined;
    this.flight?.aborter.abort();
  }

  /** Begins anew: nothing is under way, wrong or to be taken along. What is on the stage is for the tab to remove. */
  empty(what) {
    this.cancel();
    this.mend();
    this.code.hide();
    this.say(what);
  }

  /** Brings the result into view where it is below the controls, as on a narrow page. */
  bring() {
    const { top } = this.results.getBoundingClientRect();
    if (top < this.controls.getBoundingClientRect().bottom) return;
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.results.scrollIntoView({ block: "start", behavior: calm ? "auto" : "smooth" });
  }

  busy(is) {
    this.stage.setAttribute("aria-busy", is);
  }

  /** Says what was done, by which model, and how long it took. */
  tell(what, answer) {
    const model = answer.headers.get("X-Model")?.split("/").pop();
    const inference = /infer;dur=([\d.]+)/.exec(answer.headers.get("Server-Timing") ?? "");
    const times = `${duration(answer.milliseconds)}${inference ? `, ${duration(Number(inference[1]))} of it inference` : ""}`;
    this.say([what, model, times].filter(Boolean).join(" · "));
  }

  say(what) {
    clearTimeout(this.saying);
    this.saying = setTimeout(() => { this.status.textContent = what; }, PAUSE);
  }

  /** Takes back what was said to be wrong. */
  mend() {
    this.alert.replaceChildren();
    this.stage.classList.remove("stale");
  }

  /** Says what went wrong: all of the fields that are, where it is fields. */
  fail(problem) {
    this.say("");
    this.stage.classList.add("stale");
    const field = ({ place, msg }) => element("li", {}, place ? [element("code", {}, place), ` ${msg}`] : msg);
    const told = problem.errors?.length ? element("ul", {}, problem.errors.map(field)) : element("p", {}, problem.message);
    const again = problem.retryAfter ? element("p", {}, `Try again in ${problem.retryAfter}\u00a0s.`) : undefined;
    this.alert.replaceChildren(...[element("strong", {}, problem.title ?? "That did not work"), told, again].filter(Boolean));
  }
}

/** An answer with its picture ready to be shown, so that pictures are shown in the order of their calls. */
async function seen(answer, name) {
  return answer.body instanceof Blob ? { ...answer, picture: await pictureOf(answer.body, name) } : answer;
}

function duration(milliseconds) {
  if (milliseconds >= 1000) return `${(milliseconds / 1000).toFixed(1)}\u00a0s`;
  return milliseconds >= 10 ? `${Math.round(milliseconds)}\u00a0ms` : `${milliseconds.toFixed(1)}\u00a0ms`;
}
