"""Model cards and the README's table, rendered from manifests so that they cannot disagree with them."""

from __future__ import annotations

import math
from pathlib import Path

from service.contract.manifest import Manifest, Metric
from training.problems import TrainingError

CAPTIONS = {
    "classes": "How often each class is drawn, as the evaluation classifier reads it.",
    "epochs": "Samples over the epochs.",
    "interpolation": "Ten ways from one latent to another.",
    "latent-maps": "Where test pictures lie in the latent space, and what is decoded there.",
    "losses": "Losses over the training.",
    "translations": "Test pictures, four triples in a row: input, output, truth.",
    "upscaled": "Middles of test pictures at their own scale, two groups in a row: small, bicubic, upscaled, truth.",
    "inpainted": "Test pictures with holes of each kind, two groups in a row: the hole, OpenCV's Telea, ours, truth.",
    "heatmaps": "Test pictures, normal ones first, three groups in a row: the picture, what normal would have been (where the model draws "
    "that), errors in red, where they are above the pixel threshold, and where the defect is (where that is known).",
    "attention": "Test pictures, and beside each once for each word of its caption, bright where the model looked for that word.",
    "scores": "Scores of test pictures, and the threshold.",
    "matching": "Outputs, and their truths in another order: which belongs to which? (`matching` in report.json has the solution.)",
    "neighbours": "Test pictures, two groups in a row, and beside each the five training pictures whose embeddings are nearest.",
    "nearest": "Twenty samples; below each the training picture nearest in features, and the one nearest in pixels.",
}
MOST_NAMED = 20
FILE, REPORT, PICTURES = "README.md", "report.json", "pictures"

MEANING = {
    "read_right": "↑ drawn pictures that the evaluation classifier reads as asked, share",
    "read_right_worst_class": "↑ drawn pictures that are read as asked, share; of the worst class",
    "class_spread": "→1 distance between pictures of one class, over that of real ones (less: prototypes)",
    "class_spread_worst_class": "→1 distance between pictures of one class, over that of real ones; of the worst class",
    "lowest_class_share": "↑ share of a class among what is drawn, over its share among test pictures; of the worst class",
    "frechet_distance": "↓ Fréchet distance to the test pictures, 5,000 samples (no FID: features of our own classifier)",
    "frechet_distance_over_floor": "↓ Fréchet distance as a multiple of what 5,000 random training pictures have (the mean of 5 draws)",
    "kernel_distance": "↓ kernel distance (KID's formula) on those features",
    "precision": "↑ precision: samples within the real pictures' neighbourhoods, share",
    "recall": "↑ recall: real pictures within the samples' neighbourhoods, share",
    "density": "→1 density: real neighbourhoods around a sample, over those expected",
    "coverage": "↑ coverage: real pictures with a sample in their neighbourhood, share",
    "nearest_training_distance_features": "→1 distance to the nearest training picture in features, over test pictures' own (less: copies)",
    "nearest_training_distance_pixels": "→1 distance to the nearest training picture in pixels, over test pictures' own",
    "interpolation_largest_step": "↓ largest feature step over the mean one, on 100 ways of 8 pictures; of the worst way",
    "interpolation_largest_step_median": "↓ largest feature step over the mean one, of the median way",
    "milliseconds_per_picture": "↓ inference, milliseconds a picture, 64 at a time",
    "milliseconds_alone": "↓ inference, milliseconds, one picture alone",
    "neighbour_accuracy": "↑ test pictures whose five nearest training embeddings vote for their class, share",
    "reconstruction_psnr": "↑ PSNR of reconstructed test pictures, dB",
    "translation_psnr": "↑ PSNR to the truth, dB",
    "translation_feature_distance": "↓ distance to the truth on the maps of EfficientNet-Lite1, which is in no loss",
    "taken_for_target": "↑ pictures that a classifier of the two kinds takes for the target's, share",
    "twin_among_nearest": "↑ pictures whose own twin of the target is among the 5 nearest of 200, share",
    **{f"caption_bleu_{order}": f"↑ BLEU-{order} against all references of a picture, 0 to 1" for order in (1, 2, 3, 4)},
    "caption_rouge_l": "↑ ROUGE-L, 0 to 1",
    "caption_cider_d": "↑ CIDEr-D, 0 to 10; beam search",
    "caption_greedy_cider_d": "↑ CIDEr-D of the likeliest word each time",
    "caption_word_recall": "↑ words of a reference but for function words that are said, share",
    "caption_distinct": "↑ different captions among all, share",
    "caption_sampled_distinct": "↑ different captions among 8 that are drawn by chance, mean number",
    "caption_object_recall": "↑ things in the pictures that are named, share",
    "caption_object_precision": "↑ named things that are in the pictures, share",
    "caption_relations_right": "↑ stated relations between things of the picture that hold, share",
    "caption_relations_stated": "captions with two or more things of the picture that state a relation, share",
    "caption_pointing_game": "↑ words for things at which the model looked at one of these most, share",
    "caption_unknown_log_probability": "↓ mean log-probability of a grey, a white, a noisy picture and a digit; of the surest",
    "caption_digits_auroc": "↑ AUROC of the mean log-probability: test pictures against drawn digits (chance: 0.5)",
    "caption_photographs_auroc": "↑ AUROC of the mean log-probability: test pictures against photographs without things (chance: 0.5)",
    "upscale_psnr": "↑ PSNR of the brightness to the truth, 4 pixels at the edges left out, dB",
    "upscale_feature_distance": "↓ distance to the truth on the maps of EfficientNet-Lite1, which is in no loss",
    "upscale_jpeg_psnr": "↑ the same PSNR where the small picture was uploaded as JPEG of quality 60, dB",
    "upscale_jpeg_feature_distance": "↓ the same distance where it was",
    "upscale_colour_shift": "↓ difference of mean colours from the bicubic picture's, levels of 255; of the worst picture and channel",
    "inpaint_psnr": "↑ PSNR to the truth within holes of all kinds, dB",
    "inpaint_feature_distance": "↓ distance to the truth on the maps of EfficientNet-Lite1, which is in no loss; holes of all kinds",
    "inpaint_centre_psnr": "↑ PSNR within holes in the middle, dB",
    "inpaint_text_psnr": "↑ PSNR within writing, dB",
    "inpaint_text_feature_distance": "↓ that distance where writing was",
    "inpaint_scratches_psnr": "↑ PSNR within scratches, dB",
    "inpaint_scratches_feature_distance": "↓ that distance where scratches were",
    "anomaly_auroc": "↑ AUROC of the score: anomalous pictures against normal ones",
    "anomaly_f1": "↑ F1 at the threshold",
    "found_anomalies": "↑ anomalous pictures above the threshold, share",
    "flagged_normals": "↓ normal pictures above the threshold, share",
    "anomaly_pixel_auroc": "↑ AUROC of heatmaps, pixel by pixel",
    "anomaly_region_overlap": "↑ PRO: overlap with each defect, averaged up to 30 % of false pixels",
    "translation_frechet": "↓ Fréchet distance to the true pictures on the pooled features of EfficientNet-Lite1 (no FID)",
}


def write(manifest: Manifest, folder: Path) -> None:
    """Writes `folder/README.md`; `notes.md` and `pictures/*` beside it are taken in."""
    (folder / FILE).write_text(render(manifest, folder))


def render(manifest: Manifest, folder: Path) -> str:
    """The card as Markdown."""
    training = manifest.training
    sections = [
        f"# {manifest.name}: {manifest.title}",
        manifest.description,
        _facts(manifest),
        "![samples](samples.png)",
        "## Training",
        f"Data: {training.data.title}. {training.data.origin}; licence {training.data.license}.",
        f"Recipe `{training.recipe}`, variant `{training.variant}`, seed {training.seed}: {training.steps:,} steps in "
        f"{training.seconds / 60:.0f} minutes ({training.cpu_seconds / 3600:.1f} CPU hours) on {training.device}, "
        f"Keras on {training.backend}.",
        f"    {training.command}",
        f"## Figures\n\n{_metrics(manifest)}",
    ]
    pictures = sorted(path for path in (folder / PICTURES).glob("*") if path.suffix in (".png", ".webp"))
    sections += [f"{CAPTIONS.get(picture.stem, '')}\n\n![{picture.stem}]({PICTURES}/{picture.name})" for picture in pictures]
    if (notes := folder / "notes.md").exists():
        sections.append(notes.read_text().strip())
    sections += [f"## Limits\n\n{manifest.limits}", f"## Misuse\n\n{manifest.misuse}"]
    return "\n\n".join(sections) + "\n"


def _facts(manifest: Manifest) -> str:
    rows = [
        ("Tasks", ", ".join(f"`{task}`" + (" (default)" if task in manifest.default_for else "") for task in manifest.tasks)),
        ("Licence", manifest.license),
        ("Parameters", f"{manifest.parameters:,}"),
        ("Digest", f"`{manifest.digest[:12]}`"),
    ]
    if manifest.fit:
        fit, tiled = manifest.fit, manifest.large == "tile"
        how = f"{'in tiles of' if tiled else 'fitted to'} {fit.width} x {fit.height}, {fit.channels} channel{'s' * (fit.channels > 1)}"
        rows.append(("Takes", f"any picture, {how}" + ("" if tiled else f", `{fit.mode}`")))
    if manifest.classes:
        more = len(manifest.classes) - MOST_NAMED
        rows.append(("Classes", ", ".join(manifest.classes[:MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")))
    made = [port.item for graph in manifest.graphs.values() for port in graph.outputs if port.name == "images"]
    if made:
        rows.append(("Draws", f"{made[0][1]} x {made[0][0]}, {made[0][2]} channel{'s' * (made[0][2] > 1)}"))
    if manifest.latent_dimension:
        rows.append(("Latent dimensions", str(manifest.latent_dimension)))
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _metrics(manifest: Manifest) -> str:
    if not manifest.metrics:
        return f"Not measured yet: `python -m training evaluate {manifest.name}`."
    commands = dict.fromkeys(metric.command for metric in manifest.metrics.values())
    rows = [f"| {MEANING.get(name, name)} | {figure(metric.value)} | {_reference(metric)} |" for name, metric in manifest.metrics.items()]
    return "\n".join(
        [
            "Measured through the server with",
            "",
            *(f"    {command}" for command in commands),
            "",
            "| figure (↑ more is better, ↓ less is) | value | beside |",
            "|---|---|---|",
            *rows,
        ]
    )


def _reference(metric: Metric) -> str:
    return "" if metric.reference is None else f"{figure(metric.reference)} ({metric.reference_is})"


def figure(value: float) -> str:
    """Four significant digits."""
    return f"{value:.4g}"


def models_table(manifests: list[Manifest]) -> str:
    """The README's table of models."""
    rows = [
        f"| [{m.name}](models/{m.name}/README.md) | {m.title} | {', '.join(t + (' *' if t in m.default_for else '') for t in m.tasks)} "
        f"| {m.parameters:,} | {m.training.data.license} | `{m.digest[:12]}` |"
        for m in sorted(manifests, key=lambda m: m.name)
    ]
    head = ["| model | what it is | tasks (* default) | parameters | data licence | digest |", "|---|---|---|---|---|---|"]
    return "\n".join([*head, *rows])


COLUMNS = {
    "frechet_distance": "Fréchet ↓",
    "frechet_distance_over_floor": "over floor ↓",
    "kernel_distance": "KID ↓",
    "precision": "precision ↑",
    "recall": "recall ↑",
    "density": "density →1",
    "coverage": "coverage ↑",
    "read_right": "read right ↑",
    "lowest_class_share": "lowest class share ↑",
    "nearest_training_distance_features": "nearest, features →1",
    "nearest_training_distance_pixels": "nearest, pixels →1",
    "interpolation_largest_step": "largest step ↓",
    "milliseconds_per_picture": "ms a picture",
    "milliseconds_alone": "ms alone",
}


REAL = {"generate": "*real pictures*", "digits": "*real pictures, as many of each class*"}


def generators_table(manifests: list[Manifest]) -> str:
    """All generators with all their figures, measured alike within each group, which begins with what real pictures reach."""
    groups: dict[tuple[bool, str, str], list[Manifest]] = {}
    for manifest in manifests:
        for task in ("generate", "digits"):
            if task in manifest.tasks and manifest.metrics:
                source = manifest.training.data.source
                groups.setdefault((source != "mnist", source, REAL[task]), []).append(manifest)
    head = ["model", "data", "parameters", "trained, CPU hours", *COLUMNS.values()]
    rows = []
    for (_, source, real), members in sorted(groups.items()):
        floor = {name: metric.reference for manifest in members for name, metric in manifest.metrics.items()}
        rows.append([real, source, "", "", *(_cell(floor.get(name)) for name in COLUMNS)])
        for manifest in sorted(members, key=_distance):
            found = [manifest.metrics[name].value if name in manifest.metrics else None for name in COLUMNS]
            hours = f"{manifest.training.cpu_seconds / 3600:.2f}"
            name = f"[{manifest.name}](../models/{manifest.name}/README.md)"
            rows.append([name, source, f"{manifest.parameters:,}", hours, *map(_cell, found)])
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def _distance(manifest: Manifest) -> float:
    metric = manifest.metrics.get("frechet_distance")
    return math.inf if metric is None else metric.value


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


TABLES = {"README.md": ("models", models_table), "docs/generators.md": ("generators", generators_table)}
"""The documents with a table that `python -m training cards` makes, between two comments of its name."""


def with_table(document: str, text: str, manifests: list[Manifest]) -> str:
    """A document's text with its table made anew.

    Raises:
        TrainingError: the text does not say where the table goes.
    """
    name, table = TABLES[document]
    opening, closing = f"<!-- {name}: made by python -m training cards -->", f"<!-- /{name} -->"
    before, start, rest = text.partition(opening)
    _, end, after = rest.partition(closing)
    if not (start and end):
        raise TrainingError(f"{document} lacks the lines {opening} and {closing}, between which the table goes.")
    return f"{before}{opening}\n{table(manifests)}\n{closing}{after}"
