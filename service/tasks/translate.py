"""A picture of one kind as a picture of another kind, at the same size."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import BaseModel, Field
from starlette.responses import Response

from service import bodies, media
from service.call import CurrentCall
from service.engine.store import Role

TASK = "translate"
ROLES = {"translator": Role(frozenset({"images"}), frozenset({"translated"}))}

router = bodies.router()


class TranslateRequest(bodies.Body):
    image: bodies.Picture
    model: bodies.Model = None


class TranslateAnswer(BaseModel):
    image: str = Field(description="base64 PNG of the input's size")
    width: int
    height: int
    model: str


REQUEST = TranslateRequest


@router.post("/v1/translate", **bodies.picture_operation(TranslateRequest, "Translate a picture"))
async def translate(call: CurrentCall, request: Annotated[TranslateRequest, bodies.body(TranslateRequest)]) -> Response:
    """Turns a picture into one of another kind, of the same size; `model` says from what to what.

    A model whose manifest says `large: tile` works at the picture's own scale; any other resizes the picture to its own size and back.
    """
    accepted = call.accepts(media.PNG)
    model = call.model(TASK, request.model)
    pixels = await call.pixels(request.image, model, fitted=False)
    height, width, _ = pixels.shape
    call.room_for(height, width, accepted)
    if accepted != media.JSON:
        return await call.run_whole(model, TASK, "translator", pixels, call.encoder(accepted))
    image = await call.run_whole(model, TASK, "translator", pixels, np.asarray)
    return call.json(TranslateAnswer(**await call.described(image)))
