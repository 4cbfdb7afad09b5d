"""Epochs, checkpoints, resume, progress, sample sheets and TensorBoard: the same for every recipe."""

from __future__ import annotations

import json
import os
import signal
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import keras
import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter
from tqdm import tqdm

from training.problems import TrainingError
from training.step import device

CHECKPOINT = "checkpoint.npz"
CHECKPOINT_SECONDS = 120.0
REPORT_STEPS = 20
SHEETS = 100
"""Of a run, at most: where there are more epochs, they are drawn of every second, third, ... and of the last."""
SCALARS = "scalars.csv"


class Interrupted(Exception):
    """The run was asked to stop (Ctrl-C or SIGTERM) and has written its checkpoint."""


@dataclass(frozen=True)
class Plan:
    """How often a run steps: whole batches only, so what is left of an epoch's order is not used."""

    items: int
    batch_size: int
    epochs: int
    steps_per_epoch: int

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch


@dataclass
class Run:
    """One training run: a folder for its checkpoint, sheets and scalars, and how it counts.

    Attributes:
        folder: where `checkpoint.npz`, `scalars.csv`, `samples/` and TensorBoard's events go.
        seed: decides the initial weights, the order of the pictures and every noise.
        settings: what a resumed run has to agree with (recipe, data, configuration).
        resume: go on from `checkpoint.npz` rather than start afresh.
        overwrite: start afresh although there is a run's checkpoint.
        steps_limit: end after so many steps an epoch, one epoch (a smoke run).
        checkpoint_seconds: how much work a kill may lose.
        seconds, cpu_seconds: time spent so far, over all its sessions.
        backend, device: what took the last steps.
    """

    folder: Path
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = False
    overwrite: bool = False
    steps_limit: int | None = None
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    quiet: bool = False
    step: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    backend: str = keras.config.backend()
    device: str = field(default_factory=device)

    def generator(self, *key: int) -> np.random.Generator:
        """Randomness that belongs to a place in the run, such as a step, and to nothing before it."""
        return np.random.default_rng([self.seed, *key])

    def plan(self, items: int, batch_size: int, epochs: int) -> Plan:
        """How many steps there will be; a smoke run has a few of one epoch.

        Raises:
            TrainingError: fewer items than a batch.
        """
        if items < batch_size:
            raise TrainingError(f"{items} training pictures are fewer than a batch of {batch_size}: lower --batch-size.")
        steps = items // batch_size
        if self.steps_limit is not None:
            return Plan(items, batch_size, 1, min(steps, self.steps_limit))
        return Plan(items, batch_size, epochs, steps)

    def fit(
        self,
        step: Callable[[np.ndarray, np.random.Generator], Mapping[str, Any]],
        plan: Plan,
        *,
        variables: Sequence[keras.Variable],
        sheet: Callable[[], np.ndarray] | None = None,
    ) -> None:
        """Runs `step(indices, generator)` over shuffled indices of a plan's items.

        Args:
            step: takes the indices (batch_size,) of a batch and randomness of its own; gives scalars.
            variables: everything that a checkpoint has to hold, in an order that does not change.
            sheet: draws the samples of an epoch, uint8 (height, width[, 3]).

        Raises:
            TrainingError: a checkpoint of another configuration, figures that are not finite, no space left.
            Interrupted: stopped by a signal, after the checkpoint was written.
        """
        items, batch_size, epochs, steps = plan.items, plan.batch_size, plan.epochs, plan.steps_per_epoch
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.resume:
            self._restore(variables)
        else:
            if not self.overwrite:
                self._refuse_loss()
            self.checkpoint.unlink(missing_ok=True)
        self._clear_later()
        progress = tqdm(total=steps * epochs, initial=self.step, disable=self.quiet, unit="step", smoothing=0.05)
        writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.step)
        clock, saved, begun = _Clock(self), time.monotonic(), self.step
        order, order_epoch, scalars = np.empty(0, int), -1, dict[str, Any]()
        try:
            with writer, progress, _stop_on_signal() as stopped:
                while self.step < steps * epochs:
                    epoch, position = divmod(self.step, steps)
                    if epoch != order_epoch:
                        order, order_epoch = self.generator(1, epoch).permutation(items), epoch
                    indices = order[position * batch_size : (position + 1) * batch_size]
                    scalars = dict(step(indices, self.generator(2, self.step)))
                    self.step += 1
                    progress.update()
                    if self.step % REPORT_STEPS == 0 or self.step % steps == 0:
                        self._report(writer, progress, scalars, epoch + 1, epochs)
                    if self.step % steps == 0 and sheet is not None and ((epoch + 1) % -(-epochs // SHEETS) == 0 or epoch + 1 == epochs):
                        self._draw(sheet(), epoch + 1)
                    if stopped() or time.monotonic() - saved > self.checkpoint_seconds:
                        clock.tick()
                        self._save(variables, plan, scalars)
                        saved = time.monotonic()
                    if stopped() and self.step < steps * epochs:
                        raise Interrupted(f"Stopped at step {self.step} of {steps * epochs}; --resume goes on from there.")
                if self.step > begun or not self.checkpoint.exists():
                    clock.tick()
                    self._save(variables, plan, scalars)
        except OSError as error:
            raise TrainingError(f"{self.folder}: {error.strerror or error}. Free some space and go on with --resume.") from error

    def _finite(self, scalars: Mapping[str, Any]) -> dict[str, float]:
        values = {name: float(value) for name, value in scalars.items()}
        broken = [name for name, value in values.items() if not np.isfinite(value)]
        if broken:
            raise TrainingError(f"{', '.join(broken)} became NaN or infinite at step {self.step}: lower --learning-rate.")
        return values

    def _report(self, writer: SummaryWriter, progress: Any, scalars: Mapping[str, Any], epoch: int, epochs: int) -> None:
        values = self._finite(scalars)
        progress.set_description(f"epoch {epoch}/{epochs}", refresh=False)
        progress.set_postfix({name: f"{value:.4g}" for name, value in values.items()}, refresh=False)
        for name, value in values.items():
            writer.add_scalar(name, value, self.step)
        with (self.folder / SCALARS).open("a") as file:
            file.writelines(f"{self.step},{name},{value:.6g}\n" for name, value in values.items())

    def _clear_later(self) -> None:
        """Forgets the scalars and sheets of steps that are still to come: of an earlier run, or made after the last checkpoint."""
        history = self.folder / SCALARS
        lines = history.read_text().splitlines(keepends=True) if history.exists() else []
        history.write_text("".join(line for line in lines if line.endswith("\n") and int(line.partition(",")[0]) <= self.step))
        if self.step == 0:
            for sheet in self.sheets():
                sheet.unlink()

    def scalars(self) -> dict[str, np.ndarray]:
        """What was reported so far: by name, (n, 2) of step and value."""
        found: dict[str, list[tuple[float, float]]] = {}
        for line in (self.folder / SCALARS).read_text().splitlines():
            step, name, value = line.split(",")
            found.setdefault(name, []).append((float(step), float(value)))
        return {name: np.array(points) for name, points in found.items()}

    def sheets(self) -> list[Path]:
        """The sheets of samples drawn so far, one an epoch, in order."""
        return sorted((self.folder / "samples").glob("epoch-*.png"))

    def _draw(self, pixels: np.ndarray, epoch: int) -> None:
        folder = self.folder / "samples"
        folder.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / f"epoch-{epoch:04d}.png")

    @property
    def checkpoint(self) -> Path:
        return self.folder / CHECKPOINT

    def _save(self, variables: Sequence[keras.Variable], plan: Plan, scalars: Mapping[str, Any]) -> None:
        self._finite(scalars)  # weights gone wrong do not replace a good checkpoint
        state: dict[str, Any] = {"step": self.step, "steps": plan.steps, "seconds": self.seconds, "cpu_seconds": self.cpu_seconds}
        state |= {"backend": self.backend, "device": self.device}
        about = json.dumps({**state, "seed": self.seed, "settings": dict(self.settings)})
        arrays: dict[str, Any] = {f"{index:05d}": keras.ops.convert_to_numpy(variable) for index, variable in enumerate(variables)}
        unfinished = self.folder / "checkpoint.unfinished.npz"
        with unfinished.open("wb") as file:
            np.savez(file, allow_pickle=False, about=np.array(about), **arrays)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self.checkpoint)

    def _refuse_loss(self) -> None:
        if not self.checkpoint.exists():
            return
        try:
            about = stored(self.checkpoint)
        except TrainingError as error:
            raise TrainingError(f"{error}; --overwrite starts afresh.") from error
        if about["step"] < about["steps"]:
            raise TrainingError(
                f"{self.checkpoint} is at step {about['step']} of {about['steps']}: --resume goes on, --overwrite starts afresh."
            )
        raise TrainingError(
            f"{self.folder} holds a finished run: --resume exports it, --overwrite starts afresh, --out with another name keeps both."
        )

    def _restore(self, variables: Sequence[keras.Variable]) -> None:
        about = stored(self.checkpoint)
        with self.checkpoint.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            arrays = [kept[f"{index:05d}"] for index in range(len(kept.files) - 1)]
        mine = json.loads(json.dumps({"seed": self.seed, "settings": dict(self.settings)}))
        theirs = {"seed": about["seed"], "settings": about["settings"]}
        if _agreed(mine) != _agreed(theirs):
            raise TrainingError(
                f"{self.checkpoint} was written with {_difference(theirs, mine)}: give the same options, or leave out --resume."
            )
        if [array.shape for array in arrays] != [tuple(variable.shape) for variable in variables]:
            raise TrainingError(f"{self.checkpoint} holds other networks than this recipe builds: start afresh without --resume.")
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)
        self.step, self.seconds, self.cpu_seconds = about["step"], about["seconds"], about["cpu_seconds"]
        if self.step >= about["steps"]:  # nothing is left to do, so it was all done where that says
            self.backend, self.device = about["backend"], about["device"]


def stored(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint says of its run: step, steps, seconds, cpu_seconds, backend, device, seed, settings.

    Raises:
        TrainingError: there is none, or it is damaged.
    """
    if not checkpoint.exists():
        raise TrainingError(f"{checkpoint} does not exist: leave out --resume to start afresh")
    try:
        with checkpoint.open("rb") as file, zipfile.ZipFile(file) as archive:
            if broken := archive.testzip():
                raise ValueError(f"{broken} is broken")
        with checkpoint.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            about = dict(json.loads(str(kept["about"])))
        if missing := {"step", "steps", "seconds", "cpu_seconds", "backend", "device", "seed", "settings"} - about.keys():
            raise ValueError(f"{', '.join(sorted(missing))} is missing")
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise TrainingError(f"{checkpoint} is damaged or of another version ({error})") from error
    return about


class _Clock:
    """Adds what has passed since the last tick to a run's times."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.wall, self.cpu = time.monotonic(), time.process_time()

    def tick(self) -> None:
        wall, cpu = time.monotonic(), time.process_time()
        self.run.seconds += wall - self.wall
        self.run.cpu_seconds += cpu - self.cpu
        self.wall, self.cpu = wall, cpu


@contextmanager
def _stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Lets the first SIGINT or SIGTERM end the loop at the next step; a second one acts at once."""
    received: list[int] = []

    def restore() -> None:
        for caught, handler in before.items():
            signal.signal(caught, handler)

    def note(caught: int, frame: FrameType | None) -> None:
        received.append(caught)
        restore()

    before = {caught: signal.signal(caught, note) for caught in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        restore()


def _agreed(side: dict[str, Any]) -> dict[str, Any]:
    """What has to be the same; the digest of the pictures says more than the place where they lie."""
    return {"seed": side["seed"], **{name: value for name, value in side["settings"].items() if name != "source"}}


def _difference(theirs: dict[str, Any], mine: dict[str, Any]) -> str:
    flat = [{"seed": side["seed"], **side["settings"], **side["settings"].get("config", {})} for side in (theirs, mine)]
    for side in flat:
        side.pop("config", None)
    names = sorted(name for name in {*flat[0], *flat[1]} if flat[0].get(name) != flat[1].get(name))
    return ", ".join(f"{name} {flat[0].get(name)} (not {flat[1].get(name)})" for name in names)


def evenly(pictures: np.ndarray, number: int) -> np.ndarray:
    """So many of some pictures, from the first to the last at even steps."""
    return np.asarray(pictures[np.linspace(0, len(pictures) - 1, number).astype(int)])


def group_sheet(columns: Sequence[np.ndarray], groups: int) -> np.ndarray:
    """A sheet of groups of pictures that belong together, side by side: the i-th pictures (h, w, c) of all `columns` (n, h, w, c) are one.

    Args:
        groups: in a row of the sheet.
    """
    return contact_sheet(np.stack(columns, axis=1).reshape(-1, *columns[0].shape[1:]), groups * len(columns))


def contact_sheet(pictures: np.ndarray, columns: int) -> np.ndarray:
    """Lays uint8 pictures (n, height, width, 1 or 3) out in rows, as one (H, W) or (H, W, 3) array."""
    number, height, width, channels = pictures.shape
    rows = -(-number // columns)
    sheet = np.zeros((rows * columns, height, width, channels), np.uint8)
    sheet[:number] = pictures
    sheet = sheet.reshape(rows, columns, height, width, channels).swapaxes(1, 2).reshape(rows * height, columns * width, channels)
    return sheet[..., 0] if channels == 1 else sheet[..., :3]
