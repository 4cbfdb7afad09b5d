/** Generate: pictures out of noise, on the way between two, or at a place of a map; and the latents of any of them. */

import { choiceField, element, modelField, numberField, seedField, sliderField, truncationField } from "../parts/dom.js";
import { Latents, SHEET } from "../parts/latents.js";
import { LatentMap } from "../parts/map.js";
import { png } from "../parts/pictures.js";

export function open(desk, models) {
  const flat = models.filter((entry) => entry.latent_dimension === 2);
  const ways = [["samples", "Samples"], ["between", "In between"], ...(flat.length ? [["map", "Map"]] : [])];
  const way = choiceField("What to draw", ways, () => change());
  const model = modelField(models, () => change());
  const number = numberField("How many", { min: 1, max: 64, value: 18 }, () => draw());
  const seed = seedField(() => draw());
  const first = seedField(() => draw(), "From seed", 3);
  const last = seedField(() => draw(), "To seed", 4);
  const steps = sliderField("Steps", { min: 3, max: 24, step: 1, value: 10 }, () => draw());
  const truncation = truncationField(() => draw());
  const fields = { samples: [number, seed, truncation], between: [first, last, steps, truncation], map: [] };
  desk.controls.append(...[way, model, number, seed, first, last, steps, truncation].map((field) => field.root));

  const pictures = element("div", { class: "pictures" });
  const hint = element("p", { class: "hint" }, "Choose a picture to turn the numbers that it is drawn from.");
  const latents = new Latents(desk);
  const place = element("img", { alt: "What the model draws at the point", class: "pixels large" });
  const map = new LatentMap((values) => at(values));
  const mapping = element("div", { class: "side-by-side" }, map.root, place);
  let mapped;
  desk.stage.append(pictures, hint, mapping, latents.root);

  function change() {
    const onMap = way.value === "map";
    model.limit(onMap ? flat : models);
    if (onMap && mapped === undefined) model.choose("vae-map");
    for (const field of Object.values(fields).flat()) field.root.hidden = !fields[way.value].includes(field);
    pictures.hidden = hint.hidden = onMap;
    mapping.hidden = !onMap;
    latents.close();
    return onMap ? lay() : draw();
  }

  async function draw() {
    const json = way.value === "samples"
      ? { model: model.value, n: number.value, seed: seed.value, truncation: truncation.value }
      : { model: model.value, between: [first.value, last.value], steps: steps.value, truncation: truncation.value };
    const answer = await desk.ask({ path: "v1/generate", json, code: SHEET });
    if (!answer) return;
    latents.close();
    const { images, latents: from } = answer.body;
    pictures.classList.toggle("strip", way.value === "between");
    pictures.classList.toggle("few", images.length <= 4);
    pictures.replaceChildren(...images.map((image, index) => element("button", {
      type: "button", "aria-label": `Picture ${index + 1} of ${images.length}`,
      onclick: (event) => turn(event.currentTarget, from[index], png(image), index),
    }, element("img", { src: png(image), alt: "", class: "pixels" }))));
    desk.tell(images.length === 1 ? "1 picture" : `${images.length} pictures`, answer);
  }

  function turn(chosen, latent, image, index) {
    for (const other of pictures.children) other.setAttribute("aria-pressed", other === chosen);
    latents.open(model.value, latent, image, `picture ${index + 1}`);
    latents.root.scrollIntoView({ block: "nearest" });
  }

  /** Asks for the pictures of the map, where the model draws its samples. */
  async function lay() {
    const name = model.value;
    if (mapped === name) return at(map.values);
    const samples = await desk.ask({ path: "v1/generate", json: { model: name, n: 64, seed: 0 } }, { quiet: true });
    if (!samples) return undefined;
    mapped = name;
    const places = map.span(samples.body.latents);
    map.place([0, 0]);
    for (let start = 0; start < places.length; start += 48) {
      const some = { model: name, latents: places.slice(start, start + 48) };
      const part = await desk.ask({ path: "v1/generate", json: some }, { quiet: true });
      if (!part) {
        mapped = undefined;  // it is asked for again when the map is next opened
        return undefined;
      }
      await Promise.all(part.body.images.map((image, index) => map.paint(start + index, png(image))));
    }
    return at(map.values);
  }

  async function at(values) {
    const answer = await desk.ask({ path: "v1/generate", json: { model: model.value, latents: [values] }, code: SHEET });
    if (!answer) return;
    place.src = png(answer.body.images[0]);
    desk.tell(`Drawn at ${values.map((value) => value.toFixed(2)).join(", ")}`, answer);
  }

  change();
}
