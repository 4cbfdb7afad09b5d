"""Model cards and the README's table, rendered from manifests so that they cannot disagree with them."""

from __future__ import annotations

from pathlib import Path

from service.contract.manifest import Manifest, Metric
from training.problems import TrainingError

START, END = "<!-- models: made by python -m training cards -->", "<!-- /models -->"


MEANING = {
    "read_right": "↑ drawn pictures that the evaluation classifier reads as asked, share",
    "read_right_worst_class": "↑ the same for the worst class",
    "class_spread": "→1 distance between pictures of one class, over that of real ones (less: prototypes)",
    "class_spread_worst_class": "↑ the same for the worst class",
    "rarest_class_share": "↑ share of the class that is drawn most rarely",
    "frechet_distance": "↓ Fréchet distance to the test pictures, 5,000 samples (no FID: features of our own classifier)",
    "frechet_distance_over_floor": "↓ that distance, as a multiple of the one that real training pictures have",
    "kernel_distance": "↓ kernel distance (KID's formula) on those features",
    "precision": "↑ precision: samples within the real pictures' neighbourhoods, share",
    "recall": "↑ recall: real pictures within the samples' neighbourhoods, share",
    "nearest_training_distance_features": "→1 distance to the nearest training picture in features, over test pictures' own (less: copies)",
    "nearest_training_distance_pixels": "→1 the same in pixels",
    "neighbour_accuracy": "↑ test pictures whose five nearest training embeddings vote for their class, share",
    "reconstruction_psnr": "↑ PSNR of reconstructed test pictures, dB",
}


def write(manifest: Manifest, folder: Path) -> None:
    """Writes `folder/README.md`; `notes.md` and `pictures/*` beside it are taken in."""
    (folder / "README.md").write_text(render(manifest, folder))


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
    pictures = sorted((folder / "pictures").glob("*.png")) if (folder / "pictures").is_dir() else []
    sections += [f"![{picture.stem}](pictures/{picture.name})" for picture in pictures]
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
        fit = manifest.fit
        rows.append(
            ("Takes", f"any picture, fitted to {fit.width} x {fit.height}, {fit.channels} channel{'s' * (fit.channels > 1)}, `{fit.mode}`")
        )
    if manifest.classes:
        rows.append(("Classes", ", ".join(manifest.classes)))
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


def table(manifests: list[Manifest], folder: str = "models") -> str:
    """The README's table of models."""
    rows = [
        f"| [{m.name}]({folder}/{m.name}/README.md) | {m.title} | {', '.join(t + (' *' if t in m.default_for else '') for t in m.tasks)} "
        f"| {m.parameters:,} | {m.training.data.license} | `{m.digest[:12]}` |"
        for m in sorted(manifests, key=lambda m: m.name)
    ]
    head = ["| model | what it is | tasks (* default) | parameters | data licence | digest |", "|---|---|---|---|---|---|"]
    return "\n".join([START, *head, *rows, END])


def replace_table(readme: str, manifests: list[Manifest]) -> str:
    """The README's text with its table made anew.

    Raises:
        TrainingError: the text does not say where the table goes.
    """
    before, start, rest = readme.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise TrainingError(f"README.md lacks the lines {START} and {END}, between which the table goes.")
    return before + table(manifests) + after
