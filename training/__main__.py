"""python -m training fit RECIPE · evaluate NAME · export RUN · maps NAME… · classifier · cards · list"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any, get_type_hints

from training.problems import TrainingError

MODELS, RUNS = Path("models"), Path("runs")
SMOKE_STEPS = 4


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 failed for a reason that is printed in one line, 130 interrupted."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of every graph that is traced again
    given = sys.argv[1:] if arguments is None else arguments
    try:
        options = _parser(given).parse_args(given)
        return int(options.run(options) or 0)
    except TrainingError as error:
        print(f"{error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename or 'writing'}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130


def _fit(options: argparse.Namespace) -> int:
    from training import data, recipes

    recipe = recipes.find(options.recipe)
    fields = {field.name: getattr(options, field.name) for field in dataclasses.fields(recipe.Config)}
    source = "drawn" if options.smoke else options.data
    out = options.out or ((RUNS / "smoke" if options.smoke else MODELS) / options.recipe)
    settings = {
        "recipe": options.recipe,
        "data": source.partition(":")[0] if source.startswith("mnist") else source,
        "image_size": options.image_size,
        "channels": options.channels,
        **fields,
    }
    dataset = data.load(source, options.image_size, options.channels)
    if options.smoke:
        fields["batch_size"] = min(fields["batch_size"], 32)
    return _train_and_export(recipe, recipe.Config(**fields), dataset, settings, options, out)


def _train_and_export(recipe: Any, config: Any, dataset: Any, settings: dict[str, Any], options: argparse.Namespace, out: Path) -> int:
    import keras
    import pydantic

    from service.contract.manifest import Name
    from training.export import export
    from training.loop import Interrupted, Run

    try:
        pydantic.TypeAdapter(Name).validate_python(out.name)
    except pydantic.ValidationError as error:
        raise TrainingError(f"--out {out}: a model's name has lower-case letters, digits and hyphens only.") from error
    run = Run(
        RUNS / out.name,
        seed=options.seed,
        settings=settings,
        resume=options.resume,
        steps_limit=SMOKE_STEPS if options.smoke else None,
        quiet=not sys.stderr.isatty() and options.smoke,
    )
    keras.utils.set_random_seed(options.seed)
    try:
        trained = recipe.train(config, dataset, run)
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        return 130
    manifest = export(recipe, config, dataset, trained, run, out, tuple(options.default_for))
    print(f"{out}: {manifest.title}, serves {', '.join(manifest.tasks)}; digest {manifest.digest[:12]}")
    return 0


def _export(options: argparse.Namespace) -> int:
    """A finished run's last checkpoint as a model: what `fit --resume` does when nothing is left to train."""
    import numpy as np

    from training import data, recipes

    checkpoint = RUNS / options.name / "checkpoint.npz"
    if not checkpoint.exists():
        raise TrainingError(f"{checkpoint} does not exist: train it first, or look into {RUNS} for the names of runs.")
    with np.load(checkpoint, allow_pickle=False) as stored:
        about = json.loads(str(stored["about"]))
    settings = about["settings"]
    recipe = recipes.find(settings["recipe"])
    config = recipe.Config(**{field.name: settings[field.name] for field in dataclasses.fields(recipe.Config)})
    source = options.data or settings["data"]
    dataset = data.load(source, settings["image_size"], settings["channels"])
    options.seed, options.resume, options.smoke = about["seed"], True, False
    return _train_and_export(recipe, config, dataset, settings, options, options.out or MODELS / options.name)


def _evaluate(options: argparse.Namespace) -> int:
    from training import card
    from training.evaluate import evaluate

    folder = options.models / options.name
    dataset = _data_of(folder, options.data)
    elsewhere = "" if options.models == MODELS else f" --models {options.models}"
    source = "" if options.data.startswith("mnist") else f" --data {options.data}"
    manifest = evaluate(folder, dataset, f"python -m training evaluate {options.name}{elsewhere}{source}", options.url)
    for name, metric in manifest.metrics.items():
        beside = "" if metric.reference is None else f"   {metric.reference_is}: {card.figure(metric.reference)}"
        print(f"{name.replace('_', ' '):40} {card.figure(metric.value):>10}{beside}")
    return 0


def _data_of(folder: Path, source: str) -> Any:
    """A data set at the size and channels of a model's pictures.

    Raises:
        TrainingError: the manifest cannot be read, or the source's pictures are of another size.
    """
    from service.contract.manifest import ManifestError, read
    from training import data

    try:
        manifest = read(folder)
    except ManifestError as error:
        raise TrainingError(str(error)) from error
    ports = [port for graph in manifest.graphs.values() for port in (*graph.inputs, *graph.outputs) if port.name == "images"]
    height, _, channels = ports[0].shape[1:]
    dataset = data.load(source, int(height), int(channels))
    if dataset.shape != ports[0].shape[1:]:
        raise TrainingError(f"--data {source} has pictures of {dataset.shape}, {manifest.name} is for {ports[0].shape[1:]}.")
    return dataset


def _maps(options: argparse.Namespace) -> int:
    from training.pictures import latent_maps

    folders = [options.models / name for name in options.names]
    path = latent_maps(folders, _data_of(folders[0], options.data))
    print(f"{path}; python -m training cards takes it into the card")
    return 0


def _classifier(options: argparse.Namespace) -> int:
    import keras

    from training import classifier, data
    from training.loop import Interrupted, Run

    dataset = data.load(options.data)
    config = classifier.Config()
    run = Run(RUNS / f"classifier-{dataset.name}", seed=options.seed, settings={"data": dataset.name}, resume=options.resume)
    keras.utils.set_random_seed(options.seed)
    try:
        trained = classifier.Classifier(classifier.train(config, dataset, run))
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        return 130
    trained.save(classifier.FOLDER / f"{dataset.name}.npz")
    for name, split in (("validation", dataset.validation), ("test", dataset.test)):
        print(f"{name}: {(trained(split.images)[1] == split.labels).mean():.2%} read right")
    return 0


def _cards(options: argparse.Namespace) -> int:
    from service.contract import manifest
    from training import card

    found = [manifest.read(path.parent) for path in sorted(MODELS.glob(f"*/{manifest.FILE}"))]
    for one in found:
        card.write(one, MODELS / one.name)
    readme = Path("README.md")
    readme.write_text(card.replace_table(readme.read_text(), found))
    return 0


def _list(options: argparse.Namespace) -> int:
    from training import data, recipes

    print("Recipes:")
    for name in recipes.NAMES:
        recipe = recipes.find(name)
        print(f"  {name:20} {(recipe.__doc__ or '').splitlines()[0]} Serves {', '.join(recipe.TASKS)}.")
    print("Data:")
    for name, about in data.SOURCES.items():
        print(f"  {name:20} {about}")
    return 0


def _parser(given: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description="Trains models and exports them for the server.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    fit = commands.add_parser("fit", help="train a recipe and export it").add_subparsers(dest="recipe", metavar="RECIPE", required=True)
    _add_recipes(fit, given)

    export = commands.add_parser("export", help="export a finished run again")
    export.add_argument("name", metavar="RUN", help="its folder's name in runs/")
    export.add_argument("--data", metavar="SOURCE", help="where its data lies now, if elsewhere")
    export.add_argument("--out", type=Path, metavar="FOLDER", help="default: models/RUN")
    export.add_argument("--default-for", nargs="*", default=[], metavar="TASK", help="tasks that use this model by default")
    export.set_defaults(run=_export)

    evaluate = commands.add_parser("evaluate", help="measure a model through the server, into its manifest and card")
    evaluate.add_argument("name")
    evaluate.add_argument("--models", type=Path, default=MODELS, metavar="FOLDER")
    evaluate.add_argument("--url", help="of a running server, such as http://localhost:8000; default: the same application in this process")
    _add_data(evaluate)
    evaluate.set_defaults(run=_evaluate)

    maps = commands.add_parser("maps", help="draw the latent space of models with two latent dimensions, into the first one's card")
    maps.add_argument("names", nargs="+", metavar="NAME")
    maps.add_argument("--models", type=Path, default=MODELS, metavar="FOLDER")
    _add_data(maps)
    maps.set_defaults(run=_maps)

    classifier = commands.add_parser("classifier", help="train the evaluation classifier of a data set")
    _add_data(classifier)
    classifier.add_argument("--seed", type=int, default=0)
    classifier.add_argument("--resume", action="store_true")
    classifier.set_defaults(run=_classifier)

    cards = commands.add_parser("cards", help="render all cards and the README's table from the manifests")
    cards.set_defaults(run=_cards)
    listing = commands.add_parser("list", help="list recipes and data sources")
    listing.set_defaults(run=_list)
    return parser


def _add_recipes(fit: Any, given: list[str]) -> None:
    """One subcommand a recipe; only the asked one is imported for its options, since that loads Keras."""
    from training.recipes import NAMES, find

    for name in NAMES:
        if name not in given:
            fit.add_parser(name, add_help=False)
            continue
        recipe = find(name)
        command = fit.add_parser(name, description=recipe.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        _add_data(command)
        _add_size(command)
        command.add_argument("--out", type=Path, metavar="FOLDER", help=f"model folder to write (default: models/{name})")
        command.add_argument("--default-for", nargs="*", default=[], metavar="TASK", help="tasks that use this model by default")
        command.add_argument("--seed", type=int, default=0, help="decides weights, order and noise (default: 0)")
        command.add_argument("--resume", action="store_true", help="go on from the checkpoint in runs/")
        command.add_argument("--smoke", action="store_true", help="a few steps on drawn digits, then export and checks")
        hints = get_type_hints(recipe.Config)
        for field in dataclasses.fields(recipe.Config):
            option = f"--{field.name.replace('_', '-')}"
            command.add_argument(
                option, type=_positive(hints[field.name]), default=field.default, metavar="N", help=f"(default: {field.default})"
            )
        command.set_defaults(run=_fit)


def _positive(kind: type) -> Any:
    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text} is not a number") from error
        if kind in (int, float) and not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    return parse


def _add_data(command: argparse.ArgumentParser) -> None:
    command.add_argument("--data", default="mnist", metavar="SOURCE", help="mnist, mnist:PATH, folder:PATH (default: mnist)")


def _add_size(command: argparse.ArgumentParser) -> None:
    command.add_argument("--image-size", type=int, default=64, metavar="PIXELS", help="side of a folder's pictures (default: 64)")
    command.add_argument("--channels", type=int, default=3, metavar="N", help="of a folder's pictures: 1 grey, 3 colour (default: 3)")


if __name__ == "__main__":
    sys.exit(main())
