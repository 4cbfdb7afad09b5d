/** Reconstruct: a picture through the bottleneck and back, and what its few numbers do. */

import { button, element, modelField } from "../parts/dom.js";
import { Drawing } from "../parts/drawing.js";
import { DRAWN_DIGIT, examplesFor, suit } from "../parts/examples.js";
import { Latents } from "../parts/latents.js";
import { drawn, Picker, png, shown } from "../parts/pictures.js";

const FIRST = "Choose or draw a picture to begin.";
/** The picture alone, where the page wants its numbers too. */
const code = { accept: undefined, saves: "reconstructed.png" };

export function open(desk, models, catalogue) {
  const model = modelField(models, () => run());
  const picker = new Picker(desk, examplesFor("reconstruct", models), (chosen, example) => {
    picture = chosen;
    suit(model, example);
    return run();
  });
  const black = { width: 280, height: 280, colour: "white", background: "black", label: "Drawing of a digit" };
  const drawing = new Drawing(black, async (done) => {
    clear.disabled = drawing.empty;
    if (drawing.empty) forget();
    if (!done || drawing.empty) return;
    const made = await drawn(drawing.canvas, "drawing.png");
    if (drawing.empty) return;
    if (!picture?.made) suit(model, DRAWN_DIGIT);  // once: whoever then chooses another model goes on with it
    picture = made;
    picker.mark();
    run();
  });
  drawing.brush = 22;
  const clear = button("Clear", () => drawing.clear(), { disabled: true });
  const own = element("details", { class: "own" }, element("summary", {}, "Draw a digit"), drawing.canvas, clear);
  desk.controls.append(model.root, picker.root, own);

  const pair = element("div", { class: "pair" });
  const latents = new Latents(desk);
  desk.stage.append(pair, latents.root);
  let picture;
  desk.say(FIRST);

  /** What was made of the drawing goes with it. */
  function forget() {
    if (!picture?.made) return;
    picture = undefined;
    pair.replaceChildren();
    latents.close();
    desk.empty(FIRST);
  }

  async function run() {
    if (!picture) return;
    const name = model.value;
    const answer = await desk.ask({ path: "v1/reconstruct", form: { image: picture, model: name }, accept: "application/json", code });
    if (!answer) return;
    const { image, embedding, error, width, height } = answer.body;
    pair.replaceChildren(
      element("figure", {}, shown(picture, "The picture"), element("figcaption", {}, "The picture")),
      element("figure", {}, shown({ url: png(image), width, height }, "The picture reconstructed"),
        element("figcaption", {}, `From ${embedding.length} numbers`)));
    const draws = catalogue.some((entry) => entry.task === "generate" && entry.name === name);
    if (draws) latents.open(name, embedding, png(image), "the picture");
    else latents.close();
    desk.tell(`Mean squared error ${error.toFixed(4)}`, answer);
  }
}
