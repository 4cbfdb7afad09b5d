/** The page: asks what is served, makes a tab for each operation, and opens a tab's module when it is first looked at. */

import { element } from "./parts/dom.js";
import { Desk } from "./parts/desk.js";
import { get, hasKey, load, onKeyWanted, useKey } from "./parts/requests.js";

const OPERATIONS = [
  ["generate", "Generate", "New pictures out of noise. Take one and turn its numbers, or walk from one picture to another."],
  ["digits", "Digits", "Type a number and see it written by hand."],
  ["reconstruct", "Reconstruct", "A picture squeezed into a few numbers and drawn again from them. Turn the numbers, and it changes."],
  ["translate", "Translate", "A picture of one kind turned into a picture of another kind."],
  ["upscale", "Upscale", "A picture four times as wide and as high."],
  ["inpaint", "Inpaint", "Cover what should go, and it is painted anew from what is around it."],
  ["anomaly", "Anomaly", "How far a picture is from the normal ones that a model knows, and where."],
  ["caption", "Caption", "A sentence for a picture, and where the model looked for each word."],
  ["swap", "Swap", "A face drawn again with the looks of another one."],
  ["embed", "Embed", "Pictures as vectors: similar pictures have similar vectors."],
];

const notice = document.getElementById("notice");
const list = document.getElementById("tabs");
const panels = document.getElementById("panels");
const keyForm = document.getElementById("key");

/** One operation's tab and panel. Its module is fetched when it is first shown. */
class Tab {
  constructor([task, title, about], models) {
    this.task = task;
    this.models = models;
    this.tab = element("button", {
      type: "button", role: "tab", id: `tab-${task}`, "aria-controls": `panel-${task}`, class: models.length ? "" : "unserved",
      onclick: () => show(this), onkeydown: (event) => move(this, event),
    }, title);
    this.panel = element("section", { role: "tabpanel", id: `panel-${task}`, "aria-labelledby": this.tab.id, hidden: true });
    this.desk = undefined;
    this.title = title;
    this.about = about;
  }

  async open(catalogue) {
    if (this.desk) return;
    const desk = new Desk(this.panel, this.title, this.about);
    this.desk = desk;
    if (this.models.length === 0) {
      desk.nothing(`No model of this server serves ${this.task}. It can be tried here once one is in the server's models folder.`);
      return;
    }
    let module;
    try {
      await load(`playground/tabs/${this.task}.js`);  // first, as some browsers never import again what once could not be reached
      module = await import(`./tabs/${this.task}.js`);
    } catch (problem) {
      desk.fail(problem);
      this.desk = undefined;  // it is tried again when the tab is next opened
      return;
    }
    module.open(desk, this.models, catalogue);
  }
}

let tabs = [];
let catalogue = [];

/** Shows a tab, and says so in the address, so that it can be linked to. */
async function show(tab) {
  for (const other of tabs) {
    const chosen = other === tab;
    other.tab.setAttribute("aria-selected", chosen);
    other.tab.tabIndex = chosen ? 0 : -1;
    other.panel.hidden = !chosen;
  }
  bring(tab.tab);
  document.title = `${tab.title} · Atelier`;
  if (location.hash.slice(1) !== tab.task) history.replaceState(null, "", `#${tab.task}`);
  await tab.open(catalogue);
}

/** Scrolls the row of tabs, where it is too narrow for all, to one of them. */
function bring(tab) {
  tab?.scrollIntoView({ block: "nearest", inline: "center" });
}

function move(tab, event) {
  const at = tabs.indexOf(tab);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  const other = tabs[(to + tabs.length) % tabs.length];
  other.tab.focus();
  show(other);
}

function asked() {
  return tabs.find((tab) => tab.task === location.hash.slice(1)) ?? tabs.find((tab) => tab.models.length) ?? tabs[0];
}

/** Waits until the server has read its models folder, and then shows what there is. */
async function start() {
  notice.textContent = "Asking the server for its models …";
  try {
    let pause = 500;
    while (!(await get("health/ready", [200, 503])).loaded) {
      notice.textContent = "The server is loading its models …";
      await new Promise((done) => setTimeout(done, pause));
      pause = Math.min(2 * pause, 4000);  // browsers write each 503 on the console
    }
    catalogue = (await get("v1/models")).models;
  } catch (problem) {
    const first = problem.status === 401 && !hasKey();  // then the field says what is wanted
    notice.textContent = first ? "" : problem.message;
    notice.classList.add("wrong");
    return;
  }
  notice.hidden = true;
  keyForm.hidden = true;
  const of = (task) => catalogue.filter((entry) => entry.task === task);
  const served = OPERATIONS.filter(([task]) => of(task).length);
  const others = OPERATIONS.filter(([task]) => !of(task).length);
  tabs = [...served, ...others].map((operation) => new Tab(operation, of(operation[0])));
  list.replaceChildren(...tabs.map((tab) => tab.tab));
  panels.replaceChildren(...tabs.map((tab) => tab.panel));
  list.hidden = false;
  await show(asked());
}

onKeyWanted(() => {
  keyForm.hidden = false;
  document.getElementById("key-value").focus();
});
keyForm.addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(document.getElementById("key-value").value.trim());
  keyForm.hidden = true;
  notice.classList.remove("wrong");
  if (tabs.length === 0) start();
});
window.addEventListener("resize", () => bring(list.querySelector("[aria-selected=true]")));
window.addEventListener("hashchange", () => tabs.length && show(asked()));

await start();
