"""A picture through the bottleneck and back: what the model kept of it."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import BaseModel, Field
from starlette.responses import Response

from service import bodies, media
from service.call import CurrentCall
from service.engine.store import Role

TASK = "reconstruct"
ROLES = {
    "encoder": Role(frozenset({"images"}), frozenset({"embedding"})),
    "decoder": Role(frozenset({"latents"}), frozenset({"images"}), takes={"latents": "embedding"}),
}

router = bodies.router()


class ReconstructRequest(bodies.Body):
    image: bodies.Picture
    model: bodies.Model = None


class ReconstructAnswer(BaseModel):
    image: str = Field(description="base64 PNG of the model's own size")
    width: int
    height: int
    error: float = Field(description="mean squared difference to the fitted picture, both on the scale 0..1")
    embedding: list[float] = Field(description="what it was decoded from; `generate` takes it as one of its `latents`")
    model: str


REQUEST = ReconstructRequest


@router.post("/v1/reconstruct", **bodies.picture_operation(ReconstructRequest, "Reconstruct a picture"))
async def reconstruct(call: CurrentCall, request: Annotated[ReconstructRequest, bodies.body(ReconstructRequest)]) -> Response:
    """Encodes the picture and decodes it again, at the model's own size.

    With `Accept: application/json` the answer also has the `error` and the `embedding`.
    """
    accepted = call.accepts(media.PNG)
    model = call.model(TASK, request.model)
    call.room_for(*model.manifest.picture_size(TASK, "decoder"), accepted)
    pixels = await call.pixels(request.image, model)
    embedding = (await call.run(model, TASK, "encoder", images=pixels[None]))["embedding"]
    image = (await call.run(model, TASK, "decoder", latents=embedding))["images"][0]
    if accepted != media.JSON:
        return await call.picture(image, accepted)
    difference = (image.astype(np.float64) - pixels) / 255
    error = float(np.mean(difference**2))
    return call.json(ReconstructAnswer(error=error, embedding=embedding[0].tolist(), **await call.described(image)))
