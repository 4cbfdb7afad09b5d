"""Pictures of asked classes: digits by their number, any class by its label."""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
from pydantic import BaseModel, Field, model_validator
from starlette.responses import Response

from service import bodies, media
from service.call import Call, CurrentCall, dimension_of, latents_given
from service.contract.manifest import Manifest
from service.engine.store import Role
from service.problems import invalid

TASK = "digits"
ROLES = {"decoder": Role(frozenset({"latents", "labels"}), frozenset({"images"}))}

router = bodies.router()


class DigitsRequest(bodies.Body):
    """Give exactly one of `digits` and `labels`."""

    model: bodies.Model = None
    digits: Annotated[str | None, Field(pattern="^[0-9]{1,64}$", description="what to write, 1 to 64 digits")] = None
    labels: Annotated[
        list[Annotated[int, Field(ge=0)]] | None,
        Field(min_length=1, max_length=64, description="classes by their number, instead of digits"),
    ] = None
    seed: Annotated[bodies.Seed | None, Field(description="decides the noise; drawn and reported when absent")] = None
    truncation: Annotated[
        float, Field(ge=0, le=1.5, allow_inf_nan=False, description="scales the noise: less is more typical, 0 the most typical picture")
    ] = 1.0
    latents: Annotated[
        list[bodies.Latent] | None,
        Field(min_length=1, max_length=64, description="instead of noise: one for each label, or one for all (one handwriting)"),
    ] = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.digits is None) == (self.labels is None):
            raise ValueError("give exactly one of digits and labels")
        return self

    @property
    def asked(self) -> list[int]:
        return [int(digit) for digit in self.digits] if self.digits is not None else list(self.labels or [])


class DigitsAnswer(BaseModel):
    images: list[str] = Field(description="base64 PNGs, in order")
    labels: list[int]
    latents: list[list[float]] = Field(description="what each picture was drawn from; may be sent back as `latents`")
    seed: int | None = Field(default=None, description="absent when no randomness was used")
    model: str


REQUEST = DigitsRequest


@router.post("/v1/digits", **bodies.operation(DigitsRequest, DigitsAnswer, "Write digits"))
async def digits(call: CurrentCall, request: Annotated[DigitsRequest, bodies.body(DigitsRequest)]) -> Response:
    """Draws one picture for each asked digit. The same latent for all gives one handwriting.

    With `Accept: image/png` the answer is one picture: the digits side by side.
    """
    accepted = call.accepts(media.JSON)
    model = call.model(TASK, request.model)
    labels = _labels(request, model.manifest)
    height, width = model.manifest.picture_size(TASK, "decoder")
    call.room_for(height, width * len(labels), accepted)
    points, seed = _points(call, request, dimension_of(model))
    images = (await call.run(model, TASK, "decoder", latents=points, labels=labels))["images"]
    if accepted != media.JSON:
        return await call.picture(media.side_by_side(images), accepted)
    pictures = await call.base64(images)
    return call.json(DigitsAnswer(images=pictures, labels=labels.tolist(), latents=points.tolist(), seed=seed, model=model.name))


def _labels(request: DigitsRequest, manifest: Manifest) -> np.ndarray:
    for index, label in enumerate(request.asked):
        if label >= len(manifest.classes):
            loc: list[str | int] = ["body", "digits"] if request.digits is not None else ["body", "labels", index]
            raise invalid(loc, f"there is no class {label}; {manifest.name} draws 0 to {len(manifest.classes) - 1}")
    return np.array(request.asked, np.int32)


def _points(call: Call, request: DigitsRequest, dimension: int) -> tuple[np.ndarray, int | None]:
    number = len(request.asked)
    if request.latents is None:
        return call.noise(request.seed, number, dimension, request.truncation)
    if len(request.latents) not in (1, number):
        raise invalid(["body", "latents"], f"there are {len(request.latents)}: give one, or one for each of the {number} labels")
    points = latents_given(request.latents, dimension)
    return np.repeat(points, number // len(points), axis=0), None
