/** Inpaint: a mask, painted on the picture, and what the model paints in its place. */

import { compare } from "../parts/compare.js";
import { button, element, numberField, modelField, sliderField } from "../parts/dom.js";
import { Drawing } from "../parts/drawing.js";
import { examplesFor } from "../parts/examples.js";
import { drawn, Picker, saved } from "../parts/pictures.js";

export function open(desk, models) {
  const model = modelField(models, () => {});
  const picker = new Picker(desk, examplesFor("inpaint", models), (chosen) => begin(chosen));
  const share = (value) => `${value}\u00a0% of the width`;
  const brush = sliderField("Brush", { min: 1, max: 25, step: 1, value: 8, shown: share }, () => size());
  const corner = { min: 0, max: 99999, value: 0 };
  const box = {
    x: numberField("Left", corner, () => {}), y: numberField("Top", corner, () => {}),
    width: numberField("Width", { ...corner, min: 1 }, () => {}), height: numberField("Height", { ...corner, min: 1 }, () => {}),
  };
  const add = button("Cover it", () => drawing.add({ rectangle: Object.values(box).map((field) => field.value) }), { disabled: true });
  const rectangle = element("details", {}, element("summary", {}, "Cover a rectangle by numbers"),
    element("div", { class: "numbers" }, Object.values(box).map((field) => field.root)), add);
  const fill = button("Paint it anew", () => run(), { class: "primary", disabled: true });
  desk.controls.append(model.root, picker.root, rectangle);

  const undo = button("Undo", () => drawing.undo());
  const clear = button("Clear", () => drawing.clear());
  const masked = element("div", { class: "masked" });
  const editor = element("figure", { hidden: true },
    element("p", { class: "hint" }, "Paint over what should go."), masked,
    element("figcaption", {}, brush.root, element("div", { class: "tools" }, fill, undo, clear)));
  const result = element("div", { class: "made" });
  desk.stage.append(element("div", { class: "side-by-side" }, editor, result));
  let picture;
  let drawing;
  desk.say("Choose a picture to begin.");

  function begin(chosen) {
    if (!chosen.width) {
      desk.fail({ title: "This browser cannot show the picture", message: "So nothing can be painted on it. Choose a PNG, JPEG or WebP." });
      return;
    }
    picture = chosen;
    const { width, height } = picture;
    const ink = { colour: "#e0245e", label: "The mask: what is painted over is painted anew" };
    drawing = new Drawing({ width, height, ...ink }, () => changed());
    size();
    Object.assign(box.x.control, { max: width - 1 });
    Object.assign(box.y.control, { max: height - 1 });
    Object.assign(box.width.control, { max: width, value: Math.round(width / 4) });
    Object.assign(box.height.control, { max: height, value: Math.round(height / 4) });
    [box.x.value, box.y.value] = [Math.round(width * 3 / 8), Math.round(height * 3 / 8)];
    masked.replaceChildren(element("img", { src: picture.url, alt: picture.says ?? picture.name, width, height }), drawing.canvas);
    masked.style.setProperty("--proportion", width / height);
    editor.hidden = false;
    add.disabled = false;
    result.replaceChildren();
    changed();
    desk.empty("");
  }

  function size() {
    if (drawing) drawing.brush = Math.max(1, drawing.width * brush.value / 100);
  }

  function changed() {
    fill.disabled = undo.disabled = clear.disabled = drawing.empty;
  }

  async function run() {
    const mask = await drawn(drawing.copy("white", "black"), "mask.png");
    const answer = await desk.ask({ path: "v1/inpaint", form: { image: picture, mask, model: model.value }, saves: "inpainted.png" });
    if (!answer) return;
    const made = answer.picture;
    result.replaceChildren(element("p", { class: "hint" }, "Before and after."),
      compare([picture.url, "Before"], [made.url, "After"], made), saved(made));
    desk.tell("Painted anew", answer);
  }
}
