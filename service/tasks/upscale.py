"""A picture four times as wide and as high."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import BaseModel, Field
from starlette.responses import Response

from service import bodies, media
from service.call import CurrentCall
from service.contract.manifest import SCALES
from service.engine.store import Role

TASK = "upscale"
ROLES = {"upscaler": Role(frozenset({"images"}), frozenset({"upscaled"}))}
SCALE = SCALES["upscaled"]

router = bodies.router()


class UpscaleRequest(bodies.Body):
    image: bodies.Picture
    model: bodies.Model = None


class UpscaleAnswer(BaseModel):
    image: str = Field(description="base64 PNG, exactly 4 times as wide and as high as the input")
    width: int
    height: int
    model: str


REQUEST = UpscaleRequest


@router.post("/v1/upscale", **bodies.picture_operation(UpscaleRequest, "Upscale a picture"))
async def upscale(call: CurrentCall, request: Annotated[UpscaleRequest, bodies.body(UpscaleRequest)]) -> Response:
    """Makes a picture exactly 4 times as wide and as high, with the detail that such pictures usually have.

    Pictures of any size go through the model in tiles, and a picture's progress can be asked for at `/v1/requests/{id}`.
    """
    accepted = call.accepts(media.PNG)
    model = call.model(TASK, request.model)
    width, height = await call.declared_size(request.image)
    call.room_for(SCALE * height, SCALE * width, accepted)
    pixels = await call.pixels(request.image, model, fitted=False)
    if accepted != media.JSON:
        return await call.run_whole(model, TASK, "upscaler", pixels, call.encoder(accepted))
    image = await call.run_whole(model, TASK, "upscaler", pixels, np.asarray)
    return call.json(UpscaleAnswer(**await call.described(image)))
