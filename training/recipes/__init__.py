"""One file a model, from data to serving graph. What each file offers is the Recipe protocol."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any, Protocol

from training.problems import TrainingError

NAMES = (
    "anomaly-autoencoder",
    "autoencoder",
    "backbone",
    "cdcgan",
    "cgan",
    "context-encoder",
    "cyclegan",
    "dcgan",
    "f-anogan",
    "face-swap",
    "gan",
    "padim",
    "pix2pix",
    "show-attend-tell",
    "skip-ganomaly",
    "srgan",
    "srresnet",
    "vae",
)


@dataclass(frozen=True)
class About:
    """What a card says of every model of a recipe."""

    title: str
    description: str
    limits: str
    misuse: str


def setting(default: Any, about: str, *, least: float | None = None, below: float | None = None, only: str | None = None) -> Any:
    """A field of a recipe's Config, which is an option of the command line.

    Args:
        about: what it is, for `--help`.
        least: the smallest value; without it, the value has to be above 0.
        below: what the value has to be below.
        only: the one variant in which it has an effect.
    """
    return field(default=default, metadata={"about": about, "least": least, "below": below, "only": only})


class Recipe(Protocol):
    """The names that a recipe's module offers.

    Attributes:
        TASKS: the operations that its models serve, each with the graph that plays each role.
        ABOUT: for the card.
        Config: a frozen dataclass of `setting`s; they are the options of the command line. `variant` is `improved` or `chapter`.
        CHAPTER: the Config that `--variant chapter` begins with.

    A module may also offer DATA, the source that it learns from unless told otherwise, SMOKE, that of its smoke runs, IMAGE_SIZE, at which
    folders are read unless told otherwise, SERVING, the names of settings that training does not depend on and export may change,
    `describe(config, data)`, the fields of the manifest that are its own (title, description, license, fit, classes, large, margin,
    feather, largest_batch; `data`, what it was trained on if that is not what was read), and `samples(config, data, graphs)`, the sheet of
    its card, uint8 (height, width[, 3]).
    """

    TASKS: dict[str, dict[str, str]]
    ABOUT: About
    Config: type[Any]
    CHAPTER: Any

    def train(self, config: Any, data: Any, run: Any) -> Any:
        """Trains, or goes on training, and returns the trained networks."""

    def serving(self, config: Any, data: Any, trained: Any) -> dict[str, Any]:
        """The graphs by name: Keras models from uint8 pictures, latents or labels to uint8 pictures or floats."""


def find(name: str) -> Any:
    """The module of a recipe.

    Raises:
        TrainingError: there is none of that name.
    """
    if name not in NAMES:
        raise TrainingError(f"there is no recipe {name}; there is: {', '.join(NAMES)}.")
    return importlib.import_module(f"training.recipes.{name.replace('-', '_')}")
