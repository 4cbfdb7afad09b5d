/** Anomaly: how far a picture is from normal ones, where, and what another threshold would say. */

import { compare } from "../parts/compare.js";
import { button, element, modelField, sliderField } from "../parts/dom.js";
import { examplesFor, suit } from "../parts/examples.js";
import { Picker, png } from "../parts/pictures.js";

/** The level of heatmaps from which something begins to be seen, and that which is seen fully. */
const FAINT = 32;
const FULL = 160;
const COLOUR = [224, 36, 60];

export function open(desk, models) {
  const model = modelField(models, () => run());
  const picker = new Picker(desk, examplesFor("anomaly", models), (chosen, example) => {
    picture = chosen;
    suit(model, example);
    return run();
  });
  const number = (value) => value.toPrecision(3);
  const threshold = sliderField("Threshold", { min: 0, max: 1, step: "any", value: 0, shown: number }, () => judge(),
    "The line is the score. A threshold below it makes the picture anomalous.");
  const score = element("span", { class: "mark" });
  const scale = element("div", { class: "scale" });
  threshold.control.replaceWith(scale);
  scale.append(threshold.control, score);
  const reset = button("The model's own", () => { threshold.value = found.threshold; judge(); });
  threshold.root.append(reset);
  const opacity = sliderField("Heatmap", { min: 0, max: 100, step: 1, value: 75, shown: (value) => `${value}\u00a0%` },
    () => overlay.style.setProperty("--opacity", opacity.value / 100));
  const boxes = element("input", {
    type: "checkbox", checked: true, id: "anomaly-boxes", onchange: () => overlay.classList.toggle("bare", !boxes.checked),
  });
  const looks = element("div", { class: "looks", hidden: true }, threshold.root, opacity.root,
    element("div", { class: "check" }, boxes, element("label", { htmlFor: boxes.id }, "Boxes around what is above the pixel threshold")));
  desk.controls.append(model.root, picker.root);

  const badge = element("strong", { role: "status" });
  const why = element("p");
  const verdict = element("div", { class: "verdict", hidden: true }, badge, why);
  const overlay = element("div", { class: "overlay" });
  const regions = element("div");
  const normal = element("div");
  desk.stage.append(verdict, element("div", { class: "seen" }, overlay, looks), regions, normal);
  let picture;
  let found;
  desk.say("Choose a picture to begin.");

  async function run() {
    if (!picture) return;
    const call = { path: "v1/anomaly", form: { image: picture, model: model.value } };
    const answer = await desk.ask(call);
    if (!answer) return;
    found = { ...answer.body, call };
    const least = Math.min(0, found.score, 2 * found.threshold);
    const most = Math.max(1.1 * found.score, 2 * found.threshold);
    Object.assign(threshold.control, { min: least, max: most });
    threshold.value = found.threshold;
    score.style.setProperty("--at", (found.score - least) / (most - least));
    looks.hidden = verdict.hidden = false;
    judge();
    await show();
    desk.tell(`Score ${number(found.score)}`, answer);
  }

  /** The verdict at the slider's threshold, without asking again. */
  function judge() {
    const own = Math.abs(threshold.value - found.threshold) < 1e-6 * Math.abs(found.threshold);
    const limit = own ? found.threshold : threshold.value;
    const anomalous = found.score > limit;
    badge.textContent = anomalous ? "Anomalous" : "Normal";
    verdict.classList.toggle("anomalous", anomalous);
    const against = own ? "the model's threshold" : "the threshold";
    why.textContent = `The score ${number(found.score)} is ${anomalous ? "above" : "not above"} ${against} of ${number(limit)}; `
      + `it is higher than that of ${Math.round(found.percentile)}\u00a0% of the normal pictures that were held out.`;
    desk.code.show(own ? found.call : { ...found.call, form: { ...found.call.form, threshold: number(limit) } });
    reset.disabled = own;
  }

  async function show() {
    const heat = element("img", { src: png(found.heatmap) });
    await heat.decode();
    const { naturalWidth: width, naturalHeight: height } = heat;
    const canvas = element("canvas", { width, height, role: "img", "aria-label": "Heatmap: how far each place is from normal" });
    colour(canvas, heat);
    overlay.style.setProperty("--proportion", width / height);
    overlay.style.setProperty("--opacity", opacity.value / 100);
    overlay.replaceChildren(
      element("img", { src: picture.url, alt: picture.says ?? picture.name, width, height }),
      canvas,
      ...found.regions.map((region) => outlined(region, width, height)));
    const none = element("p", { class: "hint" }, "No place is above the pixel threshold.");
    regions.replaceChildren(found.regions.length ? table(found.regions, number) : none);
    const drawn = found.reconstruction && compare([picture.url, "The picture"], [png(found.reconstruction), "Normal"], { width, height });
    normal.replaceChildren(...(drawn ? [element("h3", {}, "What normal would look like"), drawn] : []));
  }
}

/** Paints a heatmap on a canvas: clear where all is normal, red where it is not. */
function colour(canvas, heat) {
  const context = canvas.getContext("2d");
  context.drawImage(heat, 0, 0);
  const image = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let at = 0; at < image.data.length; at += 4) {
    const share = Math.min(1, Math.max(0, (image.data[at] - FAINT) / (FULL - FAINT)));
    image.data.set([...COLOUR, 255 * share], at);
  }
  context.putImageData(image, 0, 0);
}

function outlined({ x, y, width, height }, whole, high) {
  const box = element("div", { class: "region" });
  for (const [name, share] of [["left", x / whole], ["top", y / high], ["width", width / whole], ["height", height / high]]) {
    box.style[name] = `${100 * share}%`;
  }
  return box;
}

function table(regions, number) {
  const head = ["Left", "Top", "Width", "Height", "Largest deviation"];
  return element("table", {},
    element("caption", {}, `${regions.length === 1 ? "One place" : `${regions.length} places`} above the pixel threshold`),
    element("thead", {}, element("tr", {}, head.map((name) => element("th", { scope: "col" }, name)))),
    element("tbody", {}, regions.slice(0, 10).map(({ x, y, width, height, score }) => element("tr", {},
      [x, y, width, height, number(score)].map((value) => element("td", {}, value))))));
}
