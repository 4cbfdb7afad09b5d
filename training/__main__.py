"""python -m training fit RECIPE · evaluate NAME · calibrate NAME · one-class RECIPE · export RUN · maps NAME… · cards · list …"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import math
import os
import shlex
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from service.contract.manifest import ManifestError
from training.problems import TrainingError

MODELS, DATA = Path("models"), "mnist"
DEFAULT_FOR = "tasks that use this model by default; given without any, none (default: those of the model that it replaces)"
FLOAT16 = "write variants in half precision too, for servers with a GPU, where their answers are nearly those of float32"
CLASSIFIED = ("mnist", "fashion")


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 failed for a reason that is printed in one line, 130 interrupted."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # else off on CPUs without AVX512, where it is up to 1.5 times as fast
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of every graph that is traced again
    given = sys.argv[1:] if arguments is None else arguments
    try:
        options = parser(given).parse_args(given)
        return int(options.run(options) or 0)
    except (TrainingError, ManifestError) as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename or 'writing'}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130


def _fit(options: argparse.Namespace) -> int:
    from training import recipes
    from training.job import RUNS, SMOKE_BATCH, Job

    recipe = recipes.find(options.recipe)
    config = chosen(options, recipe)
    if options.smoke:
        config |= {"batch_size": min(config["batch_size"], SMOKE_BATCH)} if "batch_size" in config else {}
    if options.smoke and options.data:
        raise TrainingError("--smoke draws its own pictures: leave --data out, or --smoke.")
    source = getattr(recipe, "SMOKE", "drawn") if options.smoke else options.data or getattr(recipe, "DATA", DATA)
    if options.paired:
        if not source.startswith("folder:"):
            raise TrainingError(f"--paired goes with --data folder:PATH, not with {source}.")
        source = source.replace("folder:", "pairs:", 1)
    elif "anomaly" in recipe.TASKS:
        source = source.replace("folder:", "parts:", 1)
    job = Job(options.recipe, source, options.image_size, options.channels, config, options.seed, options.smoke, options.precision)
    runs, models = (RUNS / "smoke", RUNS / "smoke" / "models") if options.smoke else (RUNS, MODELS)
    out = options.out or models / options.recipe
    overwrite = options.overwrite or (options.smoke and not options.out)
    return _run(
        job, runs / out.name, out, options, resume=options.resume, overwrite=overwrite, checkpoint_seconds=options.checkpoint_seconds
    )


def chosen(options: argparse.Namespace, recipe: Any) -> dict[str, Any]:
    """The fields of the recipe's Config: the defaults of the variant, and what was given.

    Raises:
        TrainingError: an option has no effect in this variant.
    """
    config = dataclasses.asdict(recipe.CHAPTER if options.variant == "chapter" else recipe.Config())
    for field in dataclasses.fields(recipe.Config):
        if (given := getattr(options, field.name, None)) is None:
            continue
        if field.metadata.get("only") not in (None, options.variant):
            raise TrainingError(f"{_option(field.name)} has no effect with --variant {options.variant}: leave it out.")
        config[field.name] = given
    return config


def _export(options: argparse.Namespace) -> int:
    """A finished run's last checkpoint as a model: what `fit --resume` does when nothing is left to train."""
    from training import recipes
    from training.job import RUNS, Job

    folder = RUNS / options.name
    job = Job.of_checkpoint(folder)
    models = RUNS / "smoke" / "models" if job.smoke else MODELS
    out, serve = options.out or models / folder.name, {}
    if options.direction is not None:
        if "direction" not in getattr(recipes.find(job.recipe), "SERVING", ()):
            raise TrainingError(f"--direction: {job.recipe} was trained in one direction, or has none.")
        serve = {"direction": options.direction}
    return _run(job, folder, out, options, overwrite=options.overwrite, source=options.data, serve=serve, resume=True)


def _run(job: Any, folder: Path, out: Path, options: argparse.Namespace, *, overwrite: bool = False, **more: Any) -> int:
    from training.loop import Interrupted

    default_for = None if options.default_for is None else tuple(options.default_for)
    try:
        job.fit(folder, out, default_for, overwrite=overwrite, half=options.float16, **more)
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        return 130
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    folder = _model(options.models, options.name)
    from service.contract import manifest
    from training import card
    from training.evaluate import evaluate

    dataset = _data_of(folder, options.data)
    words = ["python", "-m", "training", "evaluate", options.name]
    words += [] if options.models == MODELS else ["--models", str(options.models)]
    words += [] if dataset.source == manifest.read(folder).training.data.source else ["--data", dataset.source]
    words += [] if options.url is None else ["--url", options.url]
    words += ["--tasks", *options.tasks] if options.tasks else []
    words += ["--references", str(options.references)] if options.references else []
    command = shlex.join(words)
    measured = evaluate(folder, dataset, command, options.url, options.tasks, options.references)
    for name, metric in measured.metrics.items():
        if metric.command != command:
            continue  # measured before, of another task
        beside = "" if metric.reference is None else f"   {metric.reference_is}: {card.figure(metric.reference)}"
        print(f"{name.replace('_', ' '):40} {card.figure(metric.value):>10}{beside}")
    return 0


def _model(models: Path, name: str) -> Path:
    """The folder of a model.

    Raises:
        TrainingError: there is none of that name.
    """
    from service.contract.manifest import FILE

    if not (models / name / FILE).exists():
        raise TrainingError(f"there is no model {name} in {models}/: --models FOLDER says where it lies.")
    return models / name


def _data_of(folder: Path, source: str | None) -> Any:
    """A data set at the size and channels of a model's pictures; by default the one that the model was trained on.

    Raises:
        ManifestError: the manifest cannot be read.
        TrainingError: the source's pictures are of another size.
    """
    from service.contract.manifest import read
    from training import data

    manifest = read(folder)
    ports = [port for graph in manifest.graphs.values() for port in (*graph.inputs, *graph.outputs) if port.name == "images"]
    height, _, channels = ports[0].item
    source = source or manifest.training.data.source
    if "anomaly" in manifest.tasks:
        source = source.replace("folder:", "parts:", 1)
    dataset = data.load(source, height, channels)
    sized = {"generate", "digits", "reconstruct", "translate", "swap", "anomaly"}  # the others show pictures of any size
    exact = sized & set(manifest.tasks)
    if exact and manifest.large == "resize" and dataset.shape != ports[0].item:
        raise TrainingError(f"--data {dataset.source} has pictures of {dataset.shape}, {manifest.name} is for {ports[0].item}.")
    return dataset


def _calibrate(options: argparse.Namespace) -> int:
    folder = _model(options.models, options.name)
    from training.calibrate import calibrate

    print(calibrate(folder, _data_of(folder, options.data), options.false_positives))
    return 0


def _one_class(options: argparse.Namespace) -> int:
    from training import data, recipes
    from training.loop import Interrupted
    from training.one_class import one_class

    config = chosen(options, recipes.find(options.recipe))
    try:
        print(one_class(options.recipe, data.load(options.data), config, options.seed, options.overwrite, options.precision))
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        return 130
    return 0


def _maps(options: argparse.Namespace) -> int:
    folders = [_model(options.models, name) for name in options.names]
    from service.contract import manifest
    from training import card
    from training.pictures import latent_maps

    path = latent_maps(folders, _data_of(folders[0], options.data))
    card.write(manifest.read(folders[0]), folders[0])
    print(f"{path}, and in the card beside it")
    return 0


def _classifier(options: argparse.Namespace) -> int:
    import keras

    from training import classifier, data
    from training.job import RUNS
    from training.loop import Interrupted, Run

    dataset = data.load(options.data)
    if dataset.name not in CLASSIFIED:
        raise TrainingError(f"--data {options.data}: classifiers are kept for {', '.join(CLASSIFIED)} only, so that figures compare.")
    config, path = classifier.Config(), classifier.FOLDER / f"{dataset.name}.npz"
    if path.exists() and not (options.overwrite or options.resume):
        raise TrainingError(f"{path} is there, and figures were measured with it: --overwrite replaces it.")
    settings = {"data": dataset.name, "pictures": dataset.fingerprint, "config": dataclasses.asdict(config)}
    run = Run(RUNS / f"classifier-{dataset.name}", options.seed, settings, options.resume, options.overwrite)
    keras.utils.set_random_seed(options.seed)
    try:
        trained = classifier.Classifier(classifier.train(config, dataset, run))
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        return 130
    trained.save(path)
    for name, split in (("validation", dataset.validation), ("test", dataset.test)):
        print(f"{name}: {(trained(split.images)[1] == split.labels).mean():.2%} read right")
    return 0


def _cards(options: argparse.Namespace) -> int:
    from service.contract import manifest
    from training import card

    found = [manifest.read(path.parent) for path in sorted(MODELS.glob(f"*/{manifest.FILE}"))]
    texts = {MODELS / one.name / card.FILE: card.render(one, MODELS / one.name) for one in found}
    texts |= {path: card.with_table(document, path.read_text(), found) for document in card.TABLES if (path := Path(document)).exists()}
    for path, text in texts.items():
        path.write_text(text)
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


def parser(given: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description="Trains models and exports them for the server.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    told = "python -m training fit RECIPE --help has its options; python -m training list, what each recipe is."
    fit = commands.add_parser("fit", help="train a recipe and export it", description=told)
    _add_recipes(fit.add_subparsers(dest="recipe", metavar="RECIPE", required=True), given)

    export = commands.add_parser("export", help="export a finished run again")
    export.add_argument("name", metavar="RUN", help="its folder's name in runs/")
    export.add_argument("--data", metavar="SOURCE", help="where its data lies now, if elsewhere")
    export.add_argument("--out", type=Path, metavar="FOLDER", help="default: models/RUN")
    export.add_argument("--direction", choices=("forward", "backward"), help="of a recipe that trains both (default: that of the run)")
    export.add_argument("--default-for", nargs="*", metavar="TASK", help=DEFAULT_FOR)
    export.add_argument("--overwrite", action="store_true", help="replace a model of another run")
    export.add_argument("--float16", action="store_true", help=FLOAT16)
    export.set_defaults(run=_export)

    evaluate = commands.add_parser("evaluate", help="measure a model through the server, into its manifest and card")
    evaluate.add_argument("name")
    evaluate.add_argument("--models", type=Path, default=MODELS, metavar="FOLDER")
    evaluate.add_argument("--url", help="of a running server, such as http://localhost:8000; default: the same application in this process")
    evaluate.add_argument("--tasks", nargs="*", default=[], metavar="TASK", help="measure these only (default: all of the model's)")
    told = "training pictures among which embeddings look for neighbours (default: all)"
    evaluate.add_argument("--references", type=_number(int, least=6), metavar="N", help=told)
    _add_data(evaluate, None)
    evaluate.set_defaults(run=_evaluate)

    calibrate = commands.add_parser("calibrate", help="set a detector's thresholds anew by normal pictures, without training")
    calibrate.add_argument("name")
    calibrate.add_argument("--models", type=Path, default=MODELS, metavar="FOLDER")
    told = "share of normal pictures that may be taken for anomalous (default: as before)"
    calibrate.add_argument("--false-positives", type=_number(float, below=1), metavar="N", help=told)
    _add_data(calibrate, None)
    calibrate.set_defaults(run=_calibrate)

    told = "train a detector for each class as the normal one, and measure how well it tells the others from it"
    _add_one_class(commands.add_parser("one-class", help=told).add_subparsers(dest="recipe", metavar="RECIPE", required=True), given)

    maps = commands.add_parser("maps", help="draw the latent space of models with two latent dimensions, into the first one's card")
    maps.add_argument("names", nargs="+", metavar="NAME")
    maps.add_argument("--models", type=Path, default=MODELS, metavar="FOLDER")
    _add_data(maps, None)
    maps.set_defaults(run=_maps)

    classifier = commands.add_parser("classifier", help="train the evaluation classifier of a data set")
    _add_data(classifier)
    _add_run(classifier)
    classifier.set_defaults(run=_classifier)

    cards = commands.add_parser("cards", help="render all cards, the README's table and docs/generators.md from the manifests")
    cards.set_defaults(run=_cards)
    listing = commands.add_parser("list", help="list recipes and data sources")
    listing.set_defaults(run=_list)
    return parser


def _add_recipes(fit: Any, given: list[str]) -> None:
    """One subcommand a recipe; only the asked one is imported for its options, since that loads Keras."""
    from training.recipes import NAMES, find

    for name in NAMES:
        if name not in given:
            fit.add_parser(name, add_help=False, help="")
            continue
        recipe = find(name)
        command = fit.add_parser(name, help="", description=recipe.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        _add_data(command, None, getattr(recipe, "DATA", DATA))
        _add_size(command, getattr(recipe, "IMAGE_SIZE", 64))
        command.add_argument("--out", type=Path, metavar="FOLDER", help=f"model folder to write (default: models/{name})")
        command.add_argument("--default-for", nargs="*", metavar="TASK", help=DEFAULT_FOR)
        _add_run(command)
        _add_precision(command)
        command.add_argument("--float16", action="store_true", help=FLOAT16)
        command.add_argument(
            "--checkpoint-seconds", type=_number(float), default=120.0, metavar="N", help="between checkpoints (default: 120)"
        )
        command.add_argument("--smoke", action="store_true", help="a few steps on drawn pictures, without --data, then export and checks")
        _add_config(command, recipe)
        command.set_defaults(run=_fit)


def _add_one_class(one_class: Any, given: list[str]) -> None:
    """One subcommand a recipe, as in `_add_recipes`."""
    from training.recipes import NAMES, find

    for name in NAMES:
        if name not in given:
            one_class.add_parser(name, add_help=False, help="")
            continue
        command = one_class.add_parser(name, help="", description=find(name).__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        _add_data(command)
        command.add_argument("--seed", type=_seed, default=0, metavar="N", help="decides weights, order and noise (default: 0)")
        command.add_argument("--overwrite", action="store_true", help="train and measure all again")
        _add_precision(command)
        _add_config(command, find(name), but=("normal",))
        command.set_defaults(run=_one_class)


def _add_config(command: argparse.ArgumentParser, recipe: Any, but: tuple[str, ...] = ()) -> None:
    hints = get_type_hints(recipe.Config)
    for field in dataclasses.fields(recipe.Config):
        if field.name not in but:
            _add_field(command, field, hints[field.name], getattr(recipe.CHAPTER, field.name))


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _add_field(command: argparse.ArgumentParser, field: Any, kind: Any, chapter: Any) -> None:
    """One option a field. Its default hangs on the variant, so that an option that was not given is None."""
    option, default = _option(field.name), field.default
    if get_origin(kind) is Literal:
        about = field.metadata.get("about", "networks and losses")
        given = default if field.name == "variant" else None
        command.add_argument(option, choices=get_args(kind), default=given, help=f"{about} (default: {default})")
        return
    meant, only = field.metadata, field.metadata["only"]
    if only is not None:
        told = f"{default if only == 'improved' else chapter}; only with --variant {only}"
    else:
        told = str(default) if default == chapter else f"{default}; {chapter} with --variant chapter"
    told = f"{meant['about']} (default: {told})"
    command.add_argument(option, type=_number(kind, meant["least"], meant["below"]), metavar="N", help=told)


def _add_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seed", type=_seed, default=0, metavar="N", help="decides weights, order and noise (default: 0)")
    command.add_argument("--resume", action="store_true", help="go on from the checkpoint in runs/")
    command.add_argument("--overwrite", action="store_true", help="replace an earlier model and, without --resume, its run in runs/")


def _add_precision(command: argparse.ArgumentParser) -> None:
    told = "bfloat16: 1.5 to 2 times as fast, with TensorFlow on CPUs that have AVX512_BF16 or AMX (default: float32)"
    command.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help=told)


def _seed(text: str) -> int:
    if not text.isdigit() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0 to 4294967295")
    return int(text)


def _number(kind: type, least: float | None = None, below: float | None = None) -> Any:
    """A parser of numbers above 0, or from `least` on; finite, and under `below`."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text} is not a {'whole ' if kind is int else ''}number") from error
        if not (value > 0 if least is None else value >= least):
            raise argparse.ArgumentTypeError(f"{text} is not above 0" if least is None else f"{text} is below {least:g}")
        if not value < (math.inf if below is None else below):
            raise argparse.ArgumentTypeError(f"{text} is not below {'infinity' if below is None else f'{below:g}'}")
        return value

    return parse


def _add_data(command: argparse.ArgumentParser, default: str | None = DATA, told: str = "what the model was trained on") -> None:
    told = default or told
    command.add_argument(
        "--data", default=default, metavar="SOURCE", help=f"a name of python -m training list, NAME:PATH, folder:PATH (default: {told})"
    )


def _add_size(command: argparse.ArgumentParser, size: int) -> None:
    command.add_argument("--image-size", type=int, default=size, metavar="PIXELS", help=f"side of a folder's pictures (default: {size})")
    command.add_argument("--paired", action="store_true", help="a folder's files have two pictures side by side each")
    command.add_argument("--channels", type=int, default=3, metavar="N", help="of a folder's pictures: 1 grey, 3 colour (default: 3)")


if __name__ == "__main__":
    sys.exit(main())
