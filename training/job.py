"""One training job, from the options of the command line to a model folder."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import keras
import pydantic

from service.contract.manifest import FILE, ManifestError, Name, read
from training import data, recipes
from training.loop import CHECKPOINT, CHECKPOINT_SECONDS, Run, stored
from training.problems import TrainingError
from training.step import computed_in

RUNS = Path("runs")
SMOKE_STEPS = 4
SMOKE_BATCH = 32


@dataclass(frozen=True)
class Job:
    """What is trained: everything that a resumed run has to agree with.

    Attributes:
        source: of the data, as `--data` names it.
        image_size, channels: at which a folder's pictures are read.
        config: the fields of the recipe's Config.
        smoke: a few steps on drawn pictures rather than a training.
        precision: what steps multiply in (`step.computed_in`).
    """

    recipe: str
    source: str
    image_size: int
    channels: int
    config: dict[str, Any]
    seed: int
    smoke: bool = False
    precision: str = "float32"

    @classmethod
    def of_checkpoint(cls, folder: Path) -> Self:
        """The job of a finished run, from its checkpoint.

        Raises:
            TrainingError: there is none, it is damaged, or the run is not at its end.
        """
        path = folder / CHECKPOINT
        if not path.exists():
            raise TrainingError(f"{path} does not exist: train it first, or look into {folder.parent} for the names of runs.")
        about = stored(path)
        if about["step"] < about["steps"]:
            raise TrainingError(f"{path} is at step {about['step']} of {about['steps']}: finish it with fit … --resume.")
        try:
            return cls(**{field.name: about["settings"][field.name] for field in dataclasses.fields(cls)})
        except KeyError as error:
            raise TrainingError(f"{path} is no run of fit, or of another version ({error} is missing): train again") from error

    @property
    def command(self) -> str:
        """The command line that trains the same again."""
        words = ["python -m training fit", self.recipe]
        if self.smoke:
            words.append("--smoke")
        elif self.source.startswith(("pairs:", "parts:")):
            kind, _, path = self.source.partition(":")
            words += ["--data", shlex.quote(f"folder:{path}"), *(["--paired"] if kind == "pairs" else [])]
        elif self.source != "mnist":
            words += ["--data", shlex.quote(self.source)]
        if self.source.startswith(("folder:", "pairs:", "parts:")):
            words += ["--image-size", str(self.image_size), "--channels", str(self.channels)]
        for field in dataclasses.fields(recipes.find(self.recipe).Config):
            if field.metadata.get("only") in (None, self.config["variant"]):
                words.append(f"--{field.name.replace('_', '-')} {self.config[field.name]}")
        words += [] if self.precision == "float32" else ["--precision", self.precision]
        return " ".join([*words, f"--seed {self.seed}"])

    def fit(
        self,
        folder: Path,
        out: Path,
        default_for: tuple[str, ...] | None,
        *,
        source: str | None = None,
        serve: dict[str, Any] | None = None,
        resume: bool,
        overwrite: bool,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
        half: bool = False,
    ) -> None:
        """Trains in the run's `folder` and exports to `out`.

        Args:
            default_for: tasks that use the model by default; without it, those for which the model that is replaced was the default.
            source: where the data lies now, if elsewhere than the job says.
            serve: settings that training does not depend on, for the model that is written; by default those of the job.
            half: the model has variants of its graphs in half precision.

        Raises:
            TrainingError: anything that the person at the command line can mend.
            Interrupted: stopped by a signal, after a checkpoint was written.
        """
        recipe = recipes.find(self.recipe)
        check_out(out, overwrite, folder if resume else None)
        if unknown := set(default_for or ()) - set(recipe.TASKS):
            raise TrainingError(f"--default-for {', '.join(sorted(unknown))}: {self.recipe} serves {', '.join(recipe.TASKS)}.")
        dataset = data.load(source or self.source, self.image_size, self.channels)
        config = recipe.Config(**self.config)
        named = dataclasses.replace(self, source=dataset.source)
        run = Run(
            folder,
            seed=self.seed,
            settings=dataclasses.asdict(named) | {"pictures": dataset.fingerprint},
            resume=resume,
            overwrite=overwrite or self.smoke,
            steps_limit=SMOKE_STEPS if self.smoke else None,
            checkpoint_seconds=checkpoint_seconds,
            quiet=self.smoke and not sys.stderr.isatty(),
        )
        if hasattr(recipe, "describe"):
            recipe.describe(config, dataset)  # what cannot be served is refused before the training
        keras.utils.set_random_seed(self.seed)
        with computed_in(self.precision):
            trained = recipe.train(config, dataset, run)
        if keras.config.backend() != "tensorflow":
            _export_with_tensorflow(folder, out, default_for, source or self.source, serve or {}, overwrite, half)
            return
        from training.export import export

        written = dataclasses.replace(named, config={**self.config, **(serve or {})})
        manifest = export(recipe, recipe.Config(**written.config), dataset, trained, run, out, default_for, written.command, half)
        print(f"{out}: {manifest.title}, serves {', '.join(manifest.tasks)}; digest {manifest.digest[:12]}")


def _export_with_tensorflow(
    folder: Path, out: Path, default_for: tuple[str, ...] | None, source: str, serve: dict[str, Any], overwrite: bool, half: bool
) -> None:
    """Writes ONNX, which goes by way of TensorFlow, in a process of its own whose backend that is; where there is none, says how.

    Raises:
        TrainingError: the export failed; that process has said why.
    """
    words = ["training", "export", os.path.relpath(folder, RUNS), "--out", str(out), "--data", source]
    words += ["--default-for", *default_for] if default_for is not None else []
    words += [word for name, value in serve.items() for word in (f"--{name}", str(value))]
    words += ["--overwrite"] if overwrite else []
    words += ["--float16"] if half else []
    if importlib.util.find_spec("tensorflow") is None:
        print(f"Trained. To write ONNX, take {folder} where TensorFlow is: python -m {shlex.join(words)}")
        return
    if subprocess.run([sys.executable, "-m", *words], env=os.environ | {"KERAS_BACKEND": "tensorflow"}, check=False).returncode:
        raise TrainingError(f"Trained, but not exported: python -m {shlex.join(words)} tries again.")


def check_out(out: Path, overwrite: bool, resumed: Path | None) -> None:
    """Refuses, before any training, a folder that cannot be named so, or in which there is something already.

    Args:
        overwrite: an earlier model may be replaced; anything else never is.
        resumed: the run that goes on; a model of that same run may be replaced too.

    Raises:
        TrainingError: the name is no model's, or the folder is not free.
    """
    try:
        pydantic.TypeAdapter(Name).validate_python(out.name)
    except pydantic.ValidationError as error:
        raise TrainingError(f"--out {out}: a model's name has lower-case letters, digits and hyphens only.") from error
    if out.exists() and not (out.is_dir() and ((out / FILE).exists() or not any(out.iterdir()))):
        raise TrainingError(f"--out {out} is there already and is no model: it would be replaced. Name another folder.")
    if (out / FILE).exists() and not overwrite and not (resumed is not None and _is_of(out, resumed)):
        raise TrainingError(f"{out} is a model already: --overwrite replaces it, --out names another folder.")


def _is_of(out: Path, run: Path) -> bool:
    """Whether a model was exported from this very run, which took the time that it says."""
    try:
        about, training = stored(run / CHECKPOINT), read(out).training
    except (ManifestError, TrainingError):
        return False
    settings, model = about["settings"], training.model_dump()
    ours = {name: settings.get(name) for name in ("recipe", "config")}
    ours |= {name: about[name] for name in ("seed", "device", "backend")}
    ours |= {"steps": about["step"]} | {name: round(about[name], 1) for name in ("seconds", "cpu_seconds")}
    theirs = model | {"config": model["config"] | {"variant": model["variant"]}}
    return all(theirs[name] == value for name, value in ours.items())
