/** The example pictures: their files, what they show, and which models they are for, if not for any. */

const DIGITS = ["vae", "vae-map", "autoencoder"];
const CLOTHES = ["vae-fashion"];
const FROM_RELIEF = ["pix2pix-relief-to-satellite", "cyclegan-relief-to-satellite"];
const FROM_SATELLITE = ["pix2pix-satellite-to-relief", "cyclegan-satellite-to-relief"];
const DETECTORS_OF_BRICKS = ["padim-brick", "skip-ganomaly-brick"];
const DETECTORS_OF_THREES = ["skip-ganomaly-digits", "f-anogan-digits"];

/** A digit that somebody draws: what it is for. */
export const DRAWN_DIGIT = { models: DIGITS };

const digits = [
  { file: "digit-2.png", says: "a written 2" },
  { file: "digit-3.png", says: "a written 3" },
  { file: "digit-3-again.png", says: "another 3" },
  { file: "digit-5.png", says: "a written 5" },
  { file: "digit-8.png", says: "a written 8" },
].map((example) => ({ ...example, tiny: true, models: DIGITS }));

const clothes = [
  { file: "shoe.png", says: "a shoe" },
  { file: "bag.png", says: "a bag" },
  { file: "dress.png", says: "a dress" },
  { file: "trousers.png", says: "trousers" },
  { file: "pullover.png", says: "a pullover" },
].map((example) => ({ ...example, tiny: true, models: CLOTHES }));

const photographs = [
  { file: "stream.jpg", says: "a stream between rocks" },
  { file: "meadow.jpg", says: "a meadow before mountains" },
  { file: "fig.jpg", says: "a fig in a red bowl" },
  { file: "drum.jpg", says: "a drum on a cushion" },
  { file: "dandelion.jpg", says: "dandelions in the evening" },
];

const googles = [
  { file: "face-grin-google.png", says: "a grinning face as Google draws it" },
  { file: "face-sunglasses-google.png", says: "a face with sunglasses as Google draws it" },
].map((example) => ({ ...example, tiny: true }));

const twitters = [
  { file: "face-wink-twitter.png", says: "a winking face as Twitter draws it" },
  { file: "face-party-twitter.png", says: "a partying face as Twitter draws it" },
].map((example) => ({ ...example, tiny: true }));

export const EXAMPLES = {
  reconstruct: [...digits, ...clothes],
  translate: [
    { file: "relief-south-china-sea.jpg", says: "relief of the South China Sea", models: FROM_RELIEF },
    { file: "relief-east-asia.jpg", says: "relief of Indochina and South China", models: FROM_RELIEF },
    { file: "relief-rocky-mountains.jpg", says: "relief of the Rocky Mountains", models: FROM_RELIEF },
    { file: "satellite-east-asia.jpg", says: "Indochina and South China from above", models: FROM_SATELLITE },
    { file: "satellite-rocky-mountains.jpg", says: "the Rocky Mountains from above", models: FROM_SATELLITE },
    ...googles.map((example) => ({ ...example, models: ["cyclegan-google-to-twitter"] })),
    ...twitters.map((example) => ({ ...example, models: ["cyclegan-twitter-to-google"] })),
  ],
  upscale: [
    { file: "fig-small.png", says: "a fig, 132 x 88" },
    { file: "meadow-small.png", says: "a tree before mountains, 132 x 88" },
    { file: "drum-small.png", says: "a drum, 132 x 88" },
  ],
  inpaint: photographs,
  anomaly: [
    { file: "brick-good.png", says: "bricks, as they should be", models: DETECTORS_OF_BRICKS },
    { file: "brick-crumbled.png", says: "bricks, crumbled in one place", models: DETECTORS_OF_BRICKS },
    { file: "brick-scratched.png", says: "bricks with a scratch", models: DETECTORS_OF_BRICKS },
    { file: "brick-smeared.png", says: "bricks with blurred mortar, too little to be found", models: DETECTORS_OF_BRICKS },
    { file: "grass-good.png", says: "grass, as it should be", models: ["padim-grass"] },
    { file: "grass-intruder.png", says: "grass with a striped thing in it", models: ["padim-grass"] },
    { file: "gravel-good.png", says: "gravel, as it should be", models: ["padim-gravel"] },
    { file: "gravel-stained.png", says: "gravel with a white stain", models: ["padim-gravel"] },
    { file: "digit-3.png", says: "a three, which is what the model knows", models: DETECTORS_OF_THREES },
    { file: "digit-5.png", says: "a five, which it does not know", models: DETECTORS_OF_THREES },
  ],
  caption: [
    { file: "scene-owl-books.jpg", says: "an owl above books" },
    { file: "scene-cat-hamburger.jpg", says: "a cat and a hamburger" },
    { file: "scene-bicycle.jpg", says: "a bicycle before a photographed meadow" },
    { file: "scene-umbrellas.jpg", says: "two umbrellas" },
  ],
  swap: [...googles, ...twitters],
  embed: [...digits, ...clothes, ...photographs],
};

/** Has a model field choose a model that an example is for, unless it has one chosen. */
export function suit(field, example) {
  if (example?.models && !example.models.includes(field.value)) field.choose(example.models.find((name) => field.offers(name)));
}

/** The examples of a task that a model of these can do something with. */
export function examplesFor(task, models) {
  const names = models.map(({ name }) => name);
  return EXAMPLES[task].filter((example) => !example.models || example.models.some((name) => names.includes(name)));
}
