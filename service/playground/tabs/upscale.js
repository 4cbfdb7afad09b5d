/** Upscale: four times as wide and as high, with its progress while it is in work. */

import { compare } from "../parts/compare.js";
import { element, modelField } from "../parts/dom.js";
import { examplesFor } from "../parts/examples.js";
import { Picker, saved } from "../parts/pictures.js";
import { Progress } from "../parts/progress.js";
import { requestId } from "../parts/requests.js";

export function open(desk, models) {
  const model = modelField(models, () => run());
  const picker = new Picker(desk, examplesFor("upscale", models), (chosen) => { picture = chosen; return run(); });
  desk.controls.append(model.root, picker.root);
  const progress = new Progress();
  const result = element("div");
  desk.stage.append(progress.root, result);
  let picture;
  desk.say("Choose a picture to begin, a small one.");

  async function run() {
    if (!picture) return;
    const id = requestId();
    const call = { path: "v1/upscale", form: { image: picture, model: model.value }, saves: "upscaled.png" };
    const answer = await progress.follow(id, desk.ask(call, { id }));
    if (!answer) return;
    const made = answer.picture;
    result.replaceChildren(compare([picture.url, "Enlarged by the browser"], [made.url, "Upscaled"], made), saved(made));
    desk.tell(`${made.width / 4} x ${made.height / 4} became ${made.width} x ${made.height}`, answer);
  }
}
