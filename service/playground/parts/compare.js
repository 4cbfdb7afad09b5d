/** Two pictures of the same thing on top of each other, and a line between them that can be moved. */

import { element } from "./dom.js";

/** Of two addresses, what each shows in a word, and the second one's width and height. */
export function compare([before, beforeIs], [after, afterIs], { width, height }) {
  const pixels = width <= 64 ? "pixels" : "";
  const handle = element("input", {
    type: "range", min: 0, max: 100, step: 0.5, value: 50, "aria-label": "Where the two pictures meet",
    oninput: () => at(),
  });
  const figure = element("figure", { class: width <= 64 ? "compare tiny" : "compare" },
    element("div", { class: "layers" },
      element("img", { src: after, alt: afterIs, width, height, class: pixels }),
      element("img", { src: before, alt: beforeIs, class: `before ${pixels}` }),
      element("div", { class: "line" }), handle),
    element("figcaption", {}, element("span", {}, beforeIs), element("span", {}, afterIs)));
  const at = () => {
    figure.style.setProperty("--at", `${handle.value}%`);
    handle.setAttribute("aria-valuetext", `${Math.round(handle.value)}\u00a0% ${beforeIs}`);
  };
  figure.style.setProperty("--proportion", width / height);
  at();
  return figure;
}
