"""New pictures out of noise, given latents, or the way between two of them."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Self

import numpy as np
from pydantic import BaseModel, Field, model_validator
from starlette.responses import Response

from service import bodies, media
from service.call import Call, CurrentCall, dimension_of, latents_given
from service.engine import latents
from service.engine.store import Model, Role

TASK = "generate"
ROLES = {
    "prior": Role(frozenset({"noise"}), frozenset({"latents"}), required=False),
    "decoder": Role(frozenset({"latents"}), frozenset({"images"})),
}

STEPS = 8
FINE = 64
"""At how many places a way is looked at, to take steps on it that are even to the eye."""

router = bodies.router()


class GenerateRequest(bodies.Body):
    """Give at most one of `n`, `latents` and `between`; a field that is at its default is as good as left out."""

    model: bodies.Model = None
    n: Annotated[int, Field(ge=1, le=64, description="how many pictures")] = 1
    seed: Annotated[bodies.Seed | None, Field(description="decides the noise; drawn and reported when absent")] = None
    truncation: Annotated[
        float, Field(ge=0, le=1.5, allow_inf_nan=False, description="scales the noise: less is more typical, 0 the most typical picture")
    ] = 1.0
    latents: Annotated[
        list[bodies.Latent] | None, Field(min_length=1, max_length=64, description="one picture for each, instead of noise")
    ] = None
    between: Annotated[
        list[bodies.Seed] | list[bodies.Latent] | None,
        Field(
            min_length=2,
            max_length=2,
            description="two seeds or two latents: pictures on the way from one to the other, closer together where they change fast",
        ),
    ] = None
    steps: Annotated[int, Field(ge=2, le=64, description="how many pictures `between` makes, both ends included")] = STEPS

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if self.latents is not None and self.between is not None:
            raise ValueError("give latents or between, not both")
        if self.n != 1 and (self.latents is not None or self.between is not None):
            raise ValueError("n counts pictures made from noise: leave it out beside latents or between")
        if self.steps != STEPS and self.between is None:
            raise ValueError("steps belongs to between")
        return self

    @property
    def asked(self) -> int:
        """How many pictures."""
        if self.between is not None:
            return self.steps
        return self.n if self.latents is None else len(self.latents)


class GenerateAnswer(BaseModel):
    images: list[str] = Field(description="base64 PNGs")
    latents: list[list[float]] = Field(description="what each picture was decoded from; may be sent back as `latents`")
    seed: int | None = Field(default=None, description="absent when no randomness was used")
    model: str


REQUEST = GenerateRequest


@router.post("/v1/generate", **bodies.operation(GenerateRequest, GenerateAnswer, "Generate pictures"))
async def generate(call: CurrentCall, request: Annotated[GenerateRequest, bodies.body(GenerateRequest)]) -> Response:
    """Draws pictures from seeded noise, decodes given latents, or walks between two seeds or latents.

    With `Accept: image/png` the answer is one picture: a near-square sheet in reading order, or, with
    `between`, a strip.
    """
    accepted = call.accepts(media.JSON)
    model = call.model(TASK, request.model)
    height, width = model.manifest.picture_size(TASK, "decoder")
    columns = request.asked if request.between or accepted == media.JSON else media.sheet_columns(request.asked)
    call.room_for(height * -(-request.asked // columns), width * columns, accepted)
    points, seed = await _latents(call, request, model)
    images = (await call.run(model, TASK, "decoder", latents=points))["images"]
    if accepted != media.JSON:
        lay_out = media.side_by_side if request.between else media.contact_sheet
        return await call.picture(lay_out(images), accepted)
    return call.json(GenerateAnswer(images=await call.base64(images), latents=points.tolist(), seed=seed, model=model.name))


async def _latents(call: Call, request: GenerateRequest, model: Model) -> tuple[np.ndarray, int | None]:
    """Latents of the decoder (n, d), and the seed, if one number decides them.

    Given latents are the decoder's own, and so is noise, unless the model has a prior that maps noise to latents.
    """
    if request.latents is not None:
        return latents_given(request.latents, dimension_of(model)), None
    if request.between is not None:
        way = await _way(call, request.between, request.truncation, model)
        pictures = (await call.run(model, TASK, "decoder", latents=way))["images"]
        return await call.work("encode", partial(latents.evenly, way, pictures, request.steps)), None
    noise, seed = call.noise(request.seed, request.n, _noise_dimension(model), request.truncation)
    return await _through_prior(call, model, noise), seed


async def _way(call: Call, ends: list[int] | list[list[float]], truncation: float, model: Model) -> np.ndarray:
    """The way (FINE, d) between two latents, or between two seeds: through the noise, so that all of it lies where the model draws well."""
    if isinstance(ends[0], list):
        first, last = latents_given([end for end in ends if isinstance(end, list)], dimension_of(model), "between")
        return latents.between(first, last, FINE)
    first, last = (latents.draw(end, 1, _noise_dimension(model), truncation)[0] for end in ends if isinstance(end, int))
    return await _through_prior(call, model, latents.between(first, last, FINE))


def _noise_dimension(model: Model) -> int:
    prior = model.manifest.tasks[TASK].get("prior")
    return dimension_of(model) if prior is None else model.manifest.graphs[prior].inputs[0].item[0]


async def _through_prior(call: Call, model: Model, noise: np.ndarray) -> np.ndarray:
    if "prior" not in model.manifest.tasks[TASK]:
        return noise
    return (await call.run(model, TASK, "prior", noise=noise))["latents"]
