/** Translate: a picture of one kind as a picture of another; from edges, a drawing that becomes a picture while it is drawn. */

import { compare } from "../parts/compare.js";
import { button, element, modelField } from "../parts/dom.js";
import { Drawing } from "../parts/drawing.js";
import { examplesFor } from "../parts/examples.js";
import { drawn, Picker, saved, shown } from "../parts/pictures.js";
import { SKETCHES } from "../parts/sketches.js";

/** Side of the drawing, and its pen's width: as broad as in what the model learned from, where it is reduced to 64 pixels. */
const SIDE = 384;
const PEN = 14;
/** Milliseconds from one look at a stroke that grows to the next. */
const EVERY = 100;

export function open(desk, models) {
  const fromEdges = (name) => name.includes("edges-to-");
  const sketchers = models.filter(({ name }) => fromEdges(name));
  const model = modelField(models, () => another());
  const examples = () => examplesFor("translate", [model.entry]);
  const picker = new Picker(desk, examples(), (chosen) => { picture = chosen; return change(); });
  const draw = button("Draw edges", () => {
    if (!fromEdges(model.value)) model.choose(sketchers[0].name);
    picture = undefined;
    picker.mark();
    another();
    desk.bring();
  });
  if (sketchers.length) picker.root.append(draw);

  const paper = { width: SIDE, height: SIDE, colour: "black", background: "white", label: "Drawing of edges" };
  let seen = 0;
  const drawing = new Drawing(paper, async (done) => {
    undo.disabled = clear.disabled = drawing.empty;
    if (drawing.empty) {
      result.replaceChildren(waiting);
      desk.empty("");
    } else if (done || performance.now() - seen > EVERY) {
      seen = performance.now();
      sketch();
    }
  });
  drawing.brush = PEN;
  const undo = button("Undo", () => drawing.undo(), { disabled: true });
  const clear = button("Clear", () => drawing.clear(), { disabled: true });
  const begun = Object.entries(SKETCHES).map(([name, strokes]) => button(name, () => {
    drawing.clear();
    drawing.add(...strokes.map((points) => ({ points: points.map(([x, y]) => [x * SIDE, y * SIDE]), brush: PEN })));
    desk.bring();
  }));
  const begin = element("fieldset", { class: "picker" },
    element("legend", {}, "A drawing to begin with"), element("div", { class: "tools" }, begun));
  desk.controls.append(model.root, begin, picker.root);
  const waiting = element("p", { class: "empty" }, "Draw something, in thick lines: a face, an animal, a key.");
  const result = element("div", { class: "made" }, waiting);
  const sketching = element("div", { class: "sketching" },
    element("figure", {}, drawing.canvas, element("figcaption", { class: "tools" }, undo, clear)),
    element("figure", {}, result, element("figcaption", {}, "What the model makes of it")));
  const translated = element("div");
  desk.stage.append(sketching, translated);
  let picture;

  /** Another model: an example that is not for it goes. */
  function another() {
    if (picker.chosen && !examples().includes(picker.chosen)) picture = undefined;
    picker.offer(examples());
    change();
  }

  /** Another model or picture: what was made with the one before goes. */
  function change() {
    const blank = fromEdges(model.value) && !picture;
    sketching.hidden = begin.hidden = !blank;
    draw.hidden = blank;
    result.replaceChildren(waiting);
    translated.replaceChildren();
    desk.empty(picture || blank ? "" : "Choose a picture to begin.");
    if (picture) return run();
    return blank && !drawing.empty ? sketch() : undefined;
  }

  async function run() {
    const answer = await desk.ask({ path: "v1/translate", form: { image: picture, model: model.value }, saves: "translated.png" });
    if (!answer) return;
    const made = answer.picture;
    translated.replaceChildren(compare([picture.url, "The picture"], [made.url, "Translated"], made), saved(made));
    desk.tell(`${made.width} x ${made.height}`, answer);
  }

  async function sketch() {
    const image = await drawn(drawing.canvas, "drawing.png");
    if (drawing.empty || sketching.hidden) return;
    const answer = await desk.ask({ path: "v1/translate", form: { image, model: model.value }, saves: "translated.png" });
    if (!answer) return;
    URL.revokeObjectURL(result.querySelector("img")?.src);
    result.replaceChildren(shown(answer.picture, "What the model makes of the drawing"));
    desk.tell("Your drawing", answer);
  }

  change();
}
