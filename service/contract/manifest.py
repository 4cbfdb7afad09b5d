"""The manifest: what a model eats and gives, in one file of its folder, written last."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

FILE = "manifest.json"
SCALES = {"translated": 1, "swapped": 1, "inpainted": 1, "upscaled": 4, "reconstruction": 1}
"""Outputs that are pictures made of a picture, and how many times as wide and high they are."""

SPECIAL = ("<end>", "<start>", "<unknown>")
"""The first words of every vocabulary: what ends a sentence, what stands before it, and what stands for any other word."""
END, START = 0, 1
NEVER_SAID = (1, 2)


def unsayable(first: bool) -> list[int]:
    """The words that may not come next in a sentence: those that are never said and, where nothing was said yet, its end."""
    return [*NEVER_SAID, END] if first else [*NEVER_SAID]


Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class ManifestError(ValueError):
    """A manifest that cannot be read; the message names the file and what is wrong with it."""


class Part(BaseModel):
    """Unknown keys are refused, so that a misspelt one is not silently without effect."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Fit(Part):
    """How any picture becomes the uint8 array (height, width, channels) that the graphs take.

    `contain` scales the picture to fit inside and fills the rest with the grey level `fill`;
    `cover` scales it to cover and cuts what overhangs, evenly; `stretch` ignores its proportions.
    A picture of the right size passes unchanged under each.
    """

    height: int = Field(ge=1, le=8192)
    width: int = Field(ge=1, le=8192)
    channels: Literal[1, 3, 4]
    mode: Literal["contain", "cover", "stretch"] = "contain"
    fill: int = Field(default=0, ge=0, le=255)


class Port(Part):
    """One input or output of a graph. The first dimension of its shape is the string `batch`."""

    name: str
    dtype: Literal["uint8", "int32", "int64", "float32"]
    shape: tuple[int | str, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _batch_first(self) -> Self:
        if self.shape[0] != "batch" or not all(isinstance(size, int) and size > 0 for size in self.shape[1:]):
            raise ValueError(f"the shape of {self.name} is not 'batch' followed by fixed sizes")
        return self

    @property
    def item(self) -> tuple[int, ...]:
        """The shape of one item, without the batch."""
        return tuple(int(size) for size in self.shape[1:])


class Float16(Part):
    """The same graph computed in half precision, for GPUs. Its inputs and outputs are those of the graph.

    Attributes:
        difference: the most that its answers differed from the graph's at export, as a share of the largest value (of pictures: 255).
    """

    file: FileName
    sha256: Sha256
    difference: float = Field(ge=0, allow_inf_nan=False)


class Graph(Part):
    """One ONNX file."""

    file: FileName
    sha256: Sha256
    inputs: tuple[Port, ...] = Field(min_length=1)
    outputs: tuple[Port, ...] = Field(min_length=1)
    parameters: int = Field(ge=0)
    float16: Float16 | None = None


class TrainingData(Part):
    """`source` is what `--data` of the training package named, such as `mnist`."""

    source: str
    title: str
    license: str
    origin: str


class Training(Part):
    """How the model came about. `seconds` is wall time, `cpu_seconds` that of all cores together.

    `command` trains the same again.
    """

    command: str

    recipe: str
    variant: str
    config: dict[str, Any]
    seed: int
    steps: int
    seconds: float
    cpu_seconds: float
    device: str
    backend: str
    data: TrainingData


class Metric(Part):
    """A measured figure, what it should be held against, and the command that measures it again."""

    value: float = Field(allow_inf_nan=False)
    reference: float | None = Field(default=None, allow_inf_nan=False)
    reference_is: str | None = None
    command: str


class Normal(Part):
    """What a detector of anomalies says of normal pictures that it was not fitted on.

    Attributes:
        threshold: of the score; above it a picture is anomalous.
        pixel_threshold: of the error; above it a pixel is.
        false_positives: the share of normal pictures that may be above the one threshold, and the share in which any pixel may be above
            the other.
        promised: the share that so few pictures can vouch for: `false_positives`, or more.
        pictures: how many they are.
        quantiles: their scores at 0, 1, ... 100 percent.
    """

    threshold: float = Field(allow_inf_nan=False)
    pixel_threshold: float = Field(gt=0, allow_inf_nan=False)
    false_positives: float = Field(gt=0, lt=1)
    promised: float = Field(gt=0, lt=1)
    pictures: int = Field(ge=1)
    quantiles: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] = Field(min_length=101, max_length=101)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if list(self.quantiles) != sorted(self.quantiles):
            raise ValueError("the quantiles do not ascend")
        return self


class Manifest(Part):
    """One trained model.

    Attributes:
        tasks: the operations that it serves, each mapping its roles (such as `decoder`) to graphs.
        default_for: the operations that use this model when a request names none.
        fit: how pictures enter; absent where none do.
        latent_dimension: the width of the decoder's input; absent where there is no latent space.
        classes: the names of the classes, by their number; empty without any.
        largest_batch: the most items that one run of a graph takes.
        largest_picture: the most pixels that a picture may have, beyond the service's own limit.
        large: how a task that gives a picture of the input's size treats one of another size than the graph's: `resize` it
            there and back, or run `tile`s that overlap, for graphs in which a pixel depends on what is near.
        margin: pixels at a tile's edge, next to other tiles, that are not used.
        feather: pixels on both sides of where two tiles meet over which one fades into the other.
        normal: what a detector of anomalies says of normal pictures; absent in other models.
        vocabulary: the words that a model says, by their number, after those of SPECIAL; empty in models that say nothing.
    """

    schema_version: Literal[1] = 1
    name: Name
    version: str
    title: str
    description: str
    limits: str
    misuse: str
    license: str
    tasks: dict[Name, dict[str, Name]] = Field(min_length=1)
    default_for: tuple[Name, ...] = ()
    graphs: dict[Name, Graph] = Field(min_length=1)
    fit: Fit | None = None
    latent_dimension: int | None = Field(default=None, ge=1)
    classes: tuple[str, ...] = ()
    largest_batch: int = Field(default=64, ge=1)
    largest_picture: int | None = Field(default=None, ge=1)
    large: Literal["resize", "tile"] = "resize"
    margin: int = Field(default=0, ge=0)
    feather: int = Field(default=0, ge=0)
    normal: Normal | None = None
    vocabulary: tuple[str, ...] = ()
    opset: int
    training: Training
    metrics: dict[str, Metric] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for task, roles in self.tasks.items():
            for role, graph in roles.items():
                if graph not in self.graphs:
                    raise ValueError(f"task {task} gives the role {role} to {graph}, which is not among the graphs")
        if self.large == "tile" and (self.fit is None or 2 * self.margin >= min(self.fit.height, self.fit.width)):
            raise ValueError(f"tiles with a margin of {self.margin} would have nothing in their middle")
        if self.feather > self.margin:
            raise ValueError(f"tiles cannot fade over {self.feather} pixels in a margin of {self.margin}")
        for task in self.default_for:
            if task not in self.tasks:
                raise ValueError(f"default for {task}, which is not among the tasks")
        graphs = self.graphs.values()
        for port in (port for graph in graphs for port in graph.inputs):
            self._check_input(port)
        for port in (port for graph in graphs for port in graph.outputs if port.name in SCALES):
            self._check_picture(port)
        for port in (port for graph in graphs for port in graph.outputs if port.name == "errors"):
            self._check_errors(port)
        for port in (port for graph in graphs for port in graph.outputs if port.name == "probabilities"):
            if port.item != (len(self.classes),):
                raise ValueError(f"a graph gives probabilities of {port.item}, but there are {len(self.classes)} classes")
        if self.vocabulary and (self.vocabulary[: len(SPECIAL)] != SPECIAL or len(set(self.vocabulary)) < len(self.vocabulary)):
            raise ValueError(f"the vocabulary does not begin with {', '.join(SPECIAL)}, or has a word twice")
        if self.vocabulary == SPECIAL:
            raise ValueError(f"the vocabulary has no words beside {', '.join(SPECIAL)}")
        for port in (port for graph in graphs for port in graph.outputs if port.name == "log_probabilities"):
            if port.item != (len(self.vocabulary),):
                raise ValueError(f"a graph gives log_probabilities of {port.item}, but the vocabulary has {len(self.vocabulary)} words")
        for port in (port for graph in graphs for port in (*graph.inputs, *graph.outputs)):
            if port.name == "latents" and port.item != (self.latent_dimension,):
                raise ValueError(f"a graph has latents of {port.item}, but latent_dimension is {self.latent_dimension}")
        return self

    def _check_input(self, port: Port) -> None:
        """What the service puts into a port has to be declared: pictures by `fit`, labels by `classes`. Noise is a vector of any width."""
        if port.name == "images" and (self.fit is None or port.item != (self.fit.height, self.fit.width, self.fit.channels)):
            raise ValueError(f"a graph takes images of {port.item}, but fit does not give such")
        if port.name == "masks" and (self.fit is None or port.item != (self.fit.height, self.fit.height, 1) or self.fit.height < 16):
            raise ValueError(f"a graph takes masks of {port.item}, which are no squares of 16 x 16 or more as fit gives them")
        if port.name == "noise" and len(port.item) != 1:
            raise ValueError(f"a graph takes noise of {port.item}, which is no vector")
        if port.name == "words" and not self.vocabulary:
            raise ValueError("a graph takes words, but there is no vocabulary")
        if port.name == "labels" and not self.classes:
            raise ValueError("a graph takes labels, but there are no classes")

    def _check_picture(self, port: Port) -> None:
        """A picture that is made of a picture is as large, or so many times as large, as its task promises."""
        scale, fit = SCALES[port.name], self.fit
        if fit is None or port.item != (scale * fit.height, scale * fit.width, fit.channels):
            raise ValueError(f"a graph gives {port.name} of {port.item}, which is not {scale} times what fit gives")

    def _check_errors(self, port: Port) -> None:
        """A map of errors shows all of the picture that was sent, and is read by the model's own thresholds."""
        if self.fit is None or self.fit.mode == "cover" or port.item != (self.fit.height, self.fit.width):
            raise ValueError(f"a graph gives errors of {port.item}, which is not one for each pixel of a picture that fit shows whole")
        if self.normal is None:
            raise ValueError("a graph gives errors, but the manifest does not say which are normal")

    @property
    def digest(self) -> str:
        """SHA-256 over all that changes an answer; descriptions, metrics and defaults are outside it."""
        names = {"tasks", "graphs", "fit", "latent_dimension", "classes", "largest_picture"}
        more = {name for name in ("normal", "vocabulary") if getattr(self, name)}  # absent in most models, whose digests are older
        answering = self.model_dump(mode="json", include=names | self._of_tiles | more)
        for graph in answering["graphs"].values():
            if (variant := graph.pop("float16")) is not None:
                graph["float16"] = variant["sha256"]
        return hashlib.sha256(json.dumps(answering, sort_keys=True).encode()).hexdigest()

    @property
    def _of_tiles(self) -> set[str]:
        return ({"large", "margin"} | ({"feather"} if self.feather else set())) if self.large == "tile" else set()

    def scale(self, task: str, role: str) -> int:
        """How many times as large as what they are made of the pictures of the graph in a role are."""
        return next(SCALES[port.name] for port in self.graphs[self.tasks[task][role]].outputs if port.name in SCALES)

    def picture_size(self, task: str, role: str) -> tuple[int, int]:
        """Height and width of the pictures that the graph in a role gives."""
        port = next(port for port in self.graphs[self.tasks[task][role]].outputs if port.name == "images")
        return port.item[0], port.item[1]

    @property
    def parameters(self) -> int:
        return sum(graph.parameters for graph in self.graphs.values())


def read(folder: Path) -> Manifest:
    """Reads and checks `folder/manifest.json`.

    Raises:
        ManifestError: it is missing, not JSON, or breaks the schema.
    """
    where = f"{folder.name}/{FILE}"
    try:
        return Manifest.model_validate_json((folder / FILE).read_bytes())
    except OSError as error:
        raise ManifestError(f"{where}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise ManifestError(f"{where}: {at}{': ' if at else ''}{first['msg']}{more}") from error


def found(models: Path) -> Iterator[Manifest]:
    """The manifests of a folder of models, by name; those that cannot be read, and hidden folders, left out."""
    for file in sorted(models.glob(f"[!.]*/{FILE}")):
        with suppress(ManifestError):
            yield read(file.parent)


def write(manifest: Manifest, folder: Path) -> None:
    """Writes `folder/manifest.json` in one move, so that a reader sees all of it or none."""
    unfinished = folder / f".{FILE}.unfinished"
    unfinished.write_text(manifest.model_dump_json(indent=2) + "\n")
    unfinished.replace(folder / FILE)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
