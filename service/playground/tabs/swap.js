/** Swap: a face as another identity would wear it. */

import { compare } from "../parts/compare.js";
import { element, kind, modelField, selectField } from "../parts/dom.js";
import { examplesFor } from "../parts/examples.js";
import { Picker, saved } from "../parts/pictures.js";

export function open(desk, models) {
  const model = modelField(models, () => { offer(); run(); });
  const identity = selectField("As", [], () => run(), "Whose looks the face is to have.");
  const picker = new Picker(desk, examplesFor("swap", models), (chosen, example) => {
    picture = chosen;
    const other = example && model.entry.classes.find((name) => !example.file.includes(name));
    if (other) identity.value = other;
    return run();
  }, { legend: "Face" });
  desk.controls.append(model.root, picker.root, identity.root);
  const result = element("div");
  desk.stage.append(result);
  let picture;
  offer();
  desk.say("Choose a picture to begin.");

  function offer() {
    identity.offer(model.entry.classes.map((name) => [name, kind(name)]));
  }

  async function run() {
    if (!picture) return;
    const form = { image: picture, identity: identity.value, model: model.value };
    const answer = await desk.ask({ path: "v1/swap", form, saves: "swapped.png" });
    if (!answer) return;
    const made = answer.picture;
    const as = `As ${kind(form.identity)}`;
    result.replaceChildren(compare([picture.url, "The picture"], [made.url, as], made),
      saved(made, "It says in its metadata that a model made it."));
    desk.tell(as, answer);
  }
}
