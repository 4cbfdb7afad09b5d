/** Drawings to begin with: strokes of points between 0 and 1, from the upper left corner. */

/** Points on an ellipse, from one angle to another (in turns, clockwise from the right). */
function arc(x, y, width, height, from = 0, to = 1) {
  const count = Math.ceil(72 * Math.abs(to - from));
  return Array.from({ length: count + 1 }, (_, index) => {
    const angle = 2 * Math.PI * (from + (to - from) * index / count);
    return [x + width * Math.cos(angle) / 2, y + height * Math.sin(angle) / 2];
  });
}

export const SKETCHES = {
  "A face": [
    arc(0.5, 0.5, 0.86, 0.86),
    arc(0.35, 0.4, 0.1, 0.16),
    arc(0.65, 0.4, 0.1, 0.16),
    arc(0.5, 0.55, 0.5, 0.4, 0.05, 0.45),
  ],
  "A cat": [
    arc(0.5, 0.56, 0.8, 0.68),
    [[0.16, 0.38], [0.14, 0.08], [0.38, 0.25]],
    [[0.62, 0.25], [0.86, 0.08], [0.84, 0.38]],
    arc(0.35, 0.5, 0.08, 0.12),
    arc(0.65, 0.5, 0.08, 0.12),
    [[0.45, 0.62], [0.55, 0.62], [0.5, 0.68], [0.45, 0.62]],
    arc(0.44, 0.68, 0.12, 0.12, 0, 0.5),
    arc(0.56, 0.68, 0.12, 0.12, 0, 0.5),
  ],
  "A key": [
    arc(0.3, 0.3, 0.4, 0.4),
    arc(0.24, 0.24, 0.1, 0.1),
    [[0.44, 0.38], [0.86, 0.8], [0.86, 0.92], [0.74, 0.92], [0.74, 0.82], [0.64, 0.82], [0.64, 0.72], [0.56, 0.7], [0.38, 0.48]],
  ],
  "A bear": [
    arc(0.5, 0.56, 0.78, 0.72),
    arc(0.22, 0.22, 0.26, 0.26, 0.3, 1.13),
    arc(0.78, 0.22, 0.26, 0.26, 0.37, 1.2),
    arc(0.37, 0.47, 0.07, 0.09),
    arc(0.63, 0.47, 0.07, 0.09),
    arc(0.5, 0.68, 0.36, 0.3),
    arc(0.5, 0.61, 0.12, 0.08),
    [[0.5, 0.65], [0.5, 0.73]],
    arc(0.5, 0.7, 0.16, 0.1, 0.1, 0.4),
  ],
};
