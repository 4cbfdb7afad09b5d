/** Digits: a number, written by hand. */

import { choiceField, element, modelField, seedField, textField, truncationField } from "../parts/dom.js";
import { png } from "../parts/pictures.js";

/** One picture of all digits, where the page asks for one of each. */
const code = { accept: "image/png", saves: "digits.png" };

export function open(desk, models) {
  const text = textField("Number", { inputMode: "numeric", value: "2026", maxLength: 64, autocomplete: "off", class: "big" }, () => write(),
    "The digits 0 to 9, up to 64 of them.");
  const model = modelField(models, () => write());
  const hand = choiceField("Handwriting", [["own", "Each digit its own"], ["one", "One for all"]], () => write());
  const seed = seedField(() => write());
  const truncation = truncationField(() => write());
  desk.controls.append(text.root, model.root, hand.root, seed.root, truncation.root);
  const written = element("div", { class: "written" });
  desk.stage.append(written);

  async function write() {
    text.value = text.value.replace(/\D/g, "");
    const digits = text.value;
    if (!digits) {
      written.replaceChildren();
      desk.empty("Type a number.");
      return;
    }
    const json = { model: model.value, digits, seed: seed.value, truncation: truncation.value };
    const answer = hand.value === "own" ? await desk.ask({ path: "v1/digits", json, code }) : await inOneHand(json);
    if (!answer || !text.value) return;
    const { images } = answer.body;
    written.style.setProperty("--count", images.length);
    written.replaceChildren(...images.map((image, index) => element("img", { src: png(image), alt: digits[index], class: "pixels" })));
    desk.tell(`${digits} written`, answer);
  }

  /** The hand of the first picture that the seed gives, for all digits. */
  async function inOneHand({ model: name, digits, seed: number, truncation: scale }) {
    const first = { model: name, digits: "0", seed: number, truncation: scale };
    const one = await desk.ask({ path: "v1/digits", json: first }, { quiet: true });
    return one && desk.ask({ path: "v1/digits", json: { model: name, digits, latents: one.body.latents }, code });
  }

  write();
}
