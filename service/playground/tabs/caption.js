/** Caption: a sentence for a picture. Each word shows where the model looked for it. */

import { choiceField, element, modelField, numberField, seedField, sliderField } from "../parts/dom.js";
import { examplesFor } from "../parts/examples.js";
import { Picker } from "../parts/pictures.js";

/** How dark a picture becomes where the model did not look. */
const DARK = 0.82;

export function open(desk, models) {
  const model = modelField(models, () => run());
  const picker = new Picker(desk, examplesFor("caption", models), (chosen) => { picture = chosen; return run(); });
  const ways = [["beam", "Beam search"], ["greedy", "Greedy"], ["sample", "Sample"]];
  const decoding = choiceField("Decoding", ways, () => { offer(); run(); });
  const meaning = element("p", { class: "hint" });
  decoding.root.append(meaning);
  const beams = sliderField("Beams", { min: 1, max: 10, step: 1, value: 3 }, () => run(), "Sentences that are followed at a time.");
  const temperature = sliderField("Temperature", { min: 0.1, max: 2, step: 0.1, value: 1, shown: (value) => value.toFixed(1) }, () => run(),
    "Less: likelier words. More: odder ones.");
  const seed = seedField(() => run());
  const most = numberField("Words at most", { min: 1, max: 50, value: 20 }, () => run());
  desk.controls.append(model.root, picker.root, decoding.root, beams.root, temperature.root, seed.root, most.root);

  const look = element("canvas", { class: "look", "aria-hidden": "true" });
  const seen = element("div", { class: "overlay" });
  const sentence = element("p", { class: "sentence", "aria-label": "Caption" });
  const about = element("p", { class: "hint" });
  const others = element("div");
  desk.stage.append(seen, sentence, about, others);
  let picture;
  offer();
  desk.say("Choose a picture to begin.");

  function offer() {
    meaning.textContent = {
      beam: "The best sentence that a search finds: likely, for its length.",
      greedy: "The likeliest word each time.",
      sample: "Words drawn by chance.",
    }[decoding.value];
    beams.root.hidden = decoding.value !== "beam";
    temperature.root.hidden = seed.root.hidden = decoding.value !== "sample";
  }

  async function run() {
    if (!picture) return;
    const own = { beam: { beams: beams.value }, greedy: {}, sample: { temperature: temperature.value, seed: seed.value } }[decoding.value];
    const form = { image: picture, model: model.value, decoding: decoding.value, ...own, max_words: most.value, attention: "true" };
    const answer = await desk.ask({ path: "v1/caption", form });
    if (!answer) return;
    const { caption, words, alternatives, log_probability: whole, mean_log_probability: mean } = answer.body;
    seen.style.setProperty("--proportion", (picture.width ?? 1) / (picture.height ?? 1));
    seen.replaceChildren(element("img", { src: picture.url, alt: "The picture", width: picture.width, height: picture.height }), look);
    rest();
    sentence.replaceChildren(...words.flatMap((word, index) => [index ? " " : undefined, spoken(word)].filter(Boolean)));
    about.textContent = words.length ? "Point at or tap a word, or move to it by Tab, to see where the model looked for it." : "";
    const less = alternatives.map((other) => element("li", {}, other.caption || "(nothing)", " ",
      element("span", { class: "hint" }, percent(other.log_probability))));
    others.replaceChildren(...(less.length ? [
      element("h3", {}, "It also thought of"),
      element("ul", { class: "others" }, less),
      element("p", { class: "hint" }, "The best is that which is likeliest for its length, so others may be likelier as a whole."),
    ] : []));
    desk.tell(`“${caption}”, ${percent(whole)}; ${percent(mean)} a word`, answer);
  }

  function spoken(word) {
    const about = `${percent(word.log_probability)} sure, looked most at the ${place(word.attention)}`;
    return element("button", {
      type: "button", class: "word", title: about, "aria-label": `${word.word}: ${about}`,
      onpointerenter: () => light(word.attention), onpointerleave: rest, onfocus: () => light(word.attention), onblur: rest,
      onclick: () => light(word.attention),
    }, word.word);
  }

  /** Darkens the picture where the model did not look. */
  function light(attention) {
    const most = Math.max(...attention.flat());
    Object.assign(look, { width: attention[0].length, height: attention.length });
    const context = look.getContext("2d");
    attention.forEach((row, y) => row.forEach((share, x) => {
      context.fillStyle = `rgb(0 0 0 / ${DARK * (1 - share / most)})`;
      context.fillRect(x, y, 1, 1);
    }));
    look.hidden = false;
  }

  function rest() {
    look.hidden = true;
  }
}

/** Where most of the attention is, in words. */
function place(attention) {
  const most = Math.max(...attention.flat());
  const y = attention.findIndex((row) => row.includes(most));
  const x = attention[y].indexOf(most);
  const third = (at, of, names) => names[Math.floor(3 * (at + 0.5) / of)];
  const words = [third(y, attention.length, ["top", "", "bottom"]), third(x, attention[y].length, ["left", "", "right"])];
  return words.filter(Boolean).join(" ") || "middle";
}

function percent(logarithm) {
  return `${Math.round(100 * Math.exp(logarithm))}\u00a0%`;
}
