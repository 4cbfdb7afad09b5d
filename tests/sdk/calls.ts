/** Every operation and the errors through the TypeScript client: tsc checks the types, Node.js runs it with the server's address. */

import { Atelier } from "atelier-client";
import { createClient } from "atelier-client/client";

declare const process: { argv: string[] };

const baseUrl = process.argv[2]!;
const atelier = new Atelier({ client: createClient({ baseUrl }) });

function check(holds: unknown, what: string): asserts holds {
  if (!holds) throw new Error(what);
}

const picture = async (name: string): Promise<Blob> => (await fetch(`${baseUrl}/playground/examples/${name}`)).blob();

/** Width and height of a PNG. */
async function size(picture: Blob | undefined): Promise<string> {
  check(picture?.type === "image/png", "a picture is a Blob of its type");
  const header = new DataView(await picture.arrayBuffer());
  return `${header.getUint32(16)} x ${header.getUint32(20)}`;
}

const made = await atelier.generate({ body: { n: 3, seed: 7 } });
check(made.data?.images.length === 3 && made.data.seed === 7, "generate");
const way = await atelier.generate({ body: { between: made.data.latents.slice(0, 2), steps: 5 } });
check(way.data?.latents.length === 5 && way.data.seed === undefined, "generate between");

const written = await atelier.digits({ body: { digits: "2026" } });
check(written.data?.labels.join() === "2,0,2,6", "digits");

const embedded = await atelier.embed({ body: { image: await picture("fig-small.png") } });
check(embedded.data?.embedding.length === 1280 && embedded.data.labels?.[0]?.label, "embed");

const back = await atelier.reconstruct({ body: { image: await picture("digit-3.png") } });
check((await size(back.data)) === "28 x 28", "reconstruct");

const satellite = await atelier.translate({ body: { image: await picture("relief-east-asia.jpg"), model: "pix2pix-relief-to-satellite" } });
check((await size(satellite.data)) === "320 x 240", "translate");

const large = await atelier.upscale({ body: { image: await picture("fig-small.png") } });
check((await size(large.data)) === "528 x 352", "upscale");

const face = await atelier.swap({ body: { image: await picture("face-wink-twitter.png"), identity: "google" } });
check((await size(face.data)) === "64 x 64", "swap");

const brick = await picture("brick-scratched.png");
const found = await atelier.anomaly({ body: { image: brick, threshold: 0 } });
check(found.data?.is_anomalous && found.data.regions[0]!.score > found.data.pixel_threshold, "anomaly");
const mask = await (await fetch(`data:image/png;base64,${found.data.mask}`)).blob();
check((await size((await atelier.inpaint({ body: { image: brick, mask } })).data)) === "96 x 96", "inpaint");

const scene = await picture("scene-owl-books.jpg");
for (const decoding of ["beam", "greedy", "sample"] as const) {
  const said = await atelier.caption({ body: { image: scene, decoding, attention: true } });
  check(said.data?.words[0]?.attention && said.data.caption.includes(said.data.words[0].word), decoding);
}

const models = await atelier.listModels();
check(models.data?.models.some(({ name }) => name === "vae"), "list_models");
check((await atelier.showModel({ path: { name: "vae" } })).data?.training.data.license, "show_model");
check((await atelier.reloadModels({ auth: "admin" })).data?.unchanged.includes("vae"), "reload_models");
check((await atelier.reloadModels({ auth: "nobody" })).error?.code === "unauthorized", "reload_models for nobody");

check((await atelier.live()).data?.status === "live", "live");
check((await atelier.ready()).data?.ready, "ready");
check((await atelier.serverLive()).response?.ok, "server_live");
check((await atelier.serverReady()).response?.ok, "server_ready");

const path = { name: "generate.vae-map" };
check((await atelier.serverMetadata()).data?.name === "atelier", "server_metadata");
const metadata = await atelier.modelMetadata({ path });
check(metadata.data?.inputs[0]?.name === "noise", "model_metadata");
check((await atelier.modelReady({ path })).response?.ok, "model_ready");
check((await atelier.modelConfig({ path })).data?.max_batch_size, "model_config");
const noise = { name: "noise", shape: [1, 2], datatype: "FP32", data: [0.5, -1] };
check((await atelier.infer({ path, body: { inputs: [noise] } })).data?.outputs.length === metadata.data.outputs.length, "infer");

const unknown = await atelier.generate({ body: { model: "nobody" } });
check(unknown.error?.status === 404 && unknown.error.code === "unknown_model", "404");
const invalid = await atelier.caption({ body: { image: scene, beams: 11 } });
check(invalid.error?.status === 422 && invalid.error.errors?.[0]?.loc.join(".") === "body.beams", "422");
const tooLarge = await atelier.upscale({ body: { image: await picture("relief-east-asia.jpg") } });
check(tooLarge.error?.status === 413 && tooLarge.error.limit?.name === "output_pixels", "413");
check((await atelier.showRequest({ path: { id: "over" } })).error?.code === "not_found", "show_request");

try {
  await atelier.digits({ body: { digits: "12x" }, throwOnError: true });
  check(false, "an error is thrown where that is asked for");
} catch (problem) {
  check((problem as { code: string }).code === "invalid_request", "the problem is thrown");
}
