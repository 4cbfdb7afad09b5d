"""A network that was trained on ImageNet, as an embedding of photographs: the chapter's transfer learning.

Nothing is trained here: the weights come ready. EfficientNet-Lite0 (Tan & Le 2019) from a package; VGG19 (Simonyan & Zisserman 2015) and
Inception v3 (Szegedy et al. 2016) as keras.applications downloads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np

from service.contract.manifest import TrainingData
from training import backbone
from training.data import Dataset
from training.layers import from_pixels, serve
from training.loop import Plan, Run, contact_sheet, evenly
from training.recipes import About, setting

TASKS = {"embed": {"encoder": "encoder"}}
SMOKE = "drawn-pairs"

ABOUT = About(
    title="ImageNet backbone",
    description="What a picture shows, as a vector: near vectors, alike things. Also names the likeliest of ImageNet's 1,000 classes.",
    limits="Knows photographs of the things in ImageNet, and those best that fill the picture. Its names for animals are finer than those "
    "for anything else.",
    misuse="Not for recognising people, nor for deciding about them: ImageNet's pictures and names carry the prejudices of where they come "
    "from.",
)


@dataclass(frozen=True)
class Config:
    """A minute. `chapter` is the network of the chapter's captions, which is downloaded."""

    variant: Literal["improved", "chapter"] = "improved"
    backbone: Literal["efficientnet-lite0", "vgg19", "inception_v3"] = setting("efficientnet-lite0", "which network")
    size: int = setting(224, "side of the pictures that it sees", least=32)


CHAPTER = Config(variant="chapter", backbone="inception_v3", size=299)


def train(config: Config, data: Dataset, run: Run) -> keras.Model:
    """Reads the weights."""
    model = backbone.embedder(config.backbone, config.size)
    run.fit(lambda indices, random: {}, Plan(len(data.train), 1, 0, 1), variables=[])
    return model


def serving(config: Config, data: Dataset, trained: keras.Model) -> dict[str, keras.Model]:
    """`encoder`: images -> embedding and, of EfficientNet-Lite0, probabilities."""
    pixels, pictures = from_pixels(config.size, 3)
    return {"encoder": serve([pixels], trained(pictures, training=False))}


def describe(config: Config, data: Dataset) -> dict[str, Any]:
    """Which network it is, and what its weights were trained on."""
    source = backbone.SOURCES[config.backbone]
    return {
        "title": source.title,
        "license": source.license.split(" (")[0],
        "classes": backbone.classes() if config.backbone == "efficientnet-lite0" else (),
        "fit": data.fit.model_copy(update={"height": config.size, "width": config.size, "channels": 3, "mode": "cover"}),
        "data": TrainingData(
            source=data.source, title="ImageNet-1k, 1.28 million photographs", license=source.license, origin=source.origin
        ),
    }


def samples(config: Config, data: Dataset, graphs: dict[str, keras.Model]) -> np.ndarray:
    """Pictures of the kind that it was tried with."""
    return contact_sheet(evenly(data.validation.images, 8), 4)
