"""How far a picture is from what is normal, and where."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field
from scipy import ndimage
from starlette.responses import Response

from service import bodies, media
from service.call import CurrentCall, fit_of
from service.contract import images
from service.contract.manifest import Fit, Normal
from service.engine.store import Model, Role

TASK = "anomaly"
ROLES = {"detector": Role(frozenset({"images"}), frozenset({"scores", "errors"}), optional=frozenset({"reconstruction"}))}

MOST_REGIONS = 100
"""Of one answer, those of the highest scores."""
AT_THRESHOLD = 128
"""Grey level in heatmaps of an error that equals the pixel threshold."""

router = bodies.router()


class AnomalyRequest(bodies.Body):
    image: bodies.Picture
    model: bodies.Model = None
    threshold: Annotated[
        float | None, Field(allow_inf_nan=False, description="of the score, instead of the model's own; it moves no region")
    ] = None


class Region(BaseModel):
    """Pixels next to each other whose errors are above the pixel threshold, in a box."""

    x: int = Field(description="of the left edge, in the input's pixels")
    y: int = Field(description="of the upper edge")
    width: int
    height: int
    score: float = Field(description="the largest error in it")


class AnomalyAnswer(BaseModel):
    score: float = Field(description="how far the picture is from normal ones; comparable within one model only")
    threshold: float = Field(description="above it a picture is anomalous")
    is_anomalous: bool
    percentile: float = Field(description="how many percent of the normal pictures that were held out have a lower score")
    regions: list[Region] = Field(description="where errors are above the pixel threshold, the highest first; a hundred at most")
    heatmap: Annotated[str, bodies.ENCODED] = Field(
        description="base64 PNG of the input's size: 128 x error / pixel threshold, at most 255"
    )
    mask: Annotated[str, bodies.ENCODED] = Field(
        description="base64 PNG of the input's size: 255 where the error is above the pixel threshold"
    )
    reconstruction: Annotated[str | None, bodies.ENCODED] = Field(
        default=None, description="base64 PNG of the input's size: what normal would have looked like; absent where the model draws none"
    )
    pixel_threshold: float
    model: str


REQUEST = AnomalyRequest


@router.post("/v1/anomaly", **bodies.operation(AnomalyRequest, AnomalyAnswer, "Find anomalies"))
async def anomaly(call: CurrentCall, request: Annotated[AnomalyRequest, bodies.body(AnomalyRequest)]) -> Response:
    """Scores a picture by how far it is from the normal ones that the model knows, and shows where.

    The model's thresholds were set on normal pictures that it was not fitted on, for the share of false alarms that `GET /v1/models/{name}`
    tells; `threshold` overrides that of the score. With `Accept: image/png` the answer is the heatmap.
    """
    accepted = call.accepts(media.JSON)
    model = call.model(TASK, request.model)
    width, height = await call.declared_size(request.image)
    call.room_for(height, width, accepted)
    pixels, height, width = await call.fitted(request.image, model)
    answer = {name: array[0] for name, array in (await call.run(model, TASK, "detector", images=pixels[None])).items()}
    normal = normal_of(model)
    found = await call.work("encode", partial(Found.of, answer["errors"], height, width, fit_of(model), normal.pixel_threshold))
    if accepted != media.JSON:
        return await call.picture(found.heatmap, accepted)
    pictures = [found.heatmap, found.mask]
    if "reconstruction" in answer:
        pictures.append(await call.work("encode", partial(images.unfit, answer["reconstruction"], width, height, fit_of(model))))
    encoded = dict(zip(("heatmap", "mask", "reconstruction"), await call.base64(pictures), strict=False))
    return call.json(
        AnomalyAnswer(
            **_verdict(float(answer["scores"]), request.threshold, normal),
            **encoded,
            regions=found.regions,
            pixel_threshold=normal.pixel_threshold,
            model=model.name,
        )
    )


def normal_of(model: Model) -> Normal:
    """What is normal to a model; the manifest vouches that one whose graph gives errors says so."""
    assert model.manifest.normal is not None
    return model.manifest.normal


def _verdict(score: float, threshold: float | None, normal: Normal) -> dict[str, Any]:
    threshold = normal.threshold if threshold is None else threshold
    percentile = float(np.interp(score, normal.quantiles, np.arange(len(normal.quantiles))))
    return {"score": score, "threshold": threshold, "is_anomalous": score > threshold, "percentile": percentile}


@dataclass(frozen=True)
class Found:
    """What errors show at the picture's own size.

    Attributes:
        heatmap, mask: uint8 (height, width, 1).
    """

    heatmap: np.ndarray
    mask: np.ndarray
    regions: list[Region]

    @classmethod
    def of(cls, errors: np.ndarray, height: int, width: int, fit: Fit, threshold: float) -> Found:
        """From a map float32 (fit.height, fit.width) of errors."""
        errors = images.unfit_map(errors, width, height, fit)
        above = errors > threshold
        heatmap = np.clip(np.rint(errors * (AT_THRESHOLD / threshold)), 0, 255).astype(np.uint8)
        return cls(heatmap[..., None], above[..., None] * np.uint8(255), _regions(errors, above))


def _regions(errors: np.ndarray, above: np.ndarray) -> list[Region]:
    """The connected parts of what is above, corners included."""
    labels, number = ndimage.label(above, structure=np.ones((3, 3), int))
    if number == 0:
        return []
    scores = np.zeros(number, errors.dtype)
    np.maximum.at(scores, labels[above] - 1, errors[above])  # ndimage.maximum sorts the whole picture, which takes seconds
    boxes = ndimage.find_objects(labels)
    chosen = np.argsort(-scores, kind="stable")[:MOST_REGIONS]
    return [
        Region(x=x.start, y=y.start, width=x.stop - x.start, height=y.stop - y.start, score=float(scores[index]))
        for index, (y, x) in ((index, boxes[index]) for index in chosen)
    ]
