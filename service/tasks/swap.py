"""A face as another identity would wear it, at the same size."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import BaseModel, Field
from starlette.responses import Response

from service import bodies, media
from service.call import CurrentCall
from service.engine.store import Role
from service.problems import invalid

TASK = "swap"
ROLES = {"swapper": Role(frozenset({"images", "labels"}), frozenset({"swapped"}))}

router = bodies.router()


class SwapRequest(bodies.Body):
    image: bodies.Picture
    identity: Annotated[str, Field(min_length=1, max_length=64, description="whose the face is to be: one of the model's classes")]
    model: bodies.Model = None


class SwapAnswer(BaseModel):
    image: str = Field(description="base64 PNG of the input's size")
    width: int
    height: int
    identity: str
    model: str


REQUEST = SwapRequest


@router.post("/v1/swap", **bodies.picture_operation(SwapRequest, "Swap an identity"))
async def swap(call: CurrentCall, request: Annotated[SwapRequest, bodies.body(SwapRequest)]) -> Response:
    """Draws the face of a picture as the asked identity: its pose and expression, the other's looks.

    The picture says that a model made it, whatever the server's settings.
    """
    accepted = call.accepts(media.PNG)
    call.always_marked = True
    model = call.model(TASK, request.model)
    identities = model.manifest.classes
    if request.identity not in identities:
        raise invalid(["body", "identity"], f"{model.name} knows {', '.join(identities)}")
    pixels = await call.pixels(request.image, model, fitted=False)
    height, width, _ = pixels.shape
    call.room_for(height, width, accepted)
    label = np.array(identities.index(request.identity), np.int32)
    if accepted != media.JSON:
        return await call.run_whole(model, TASK, "swapper", pixels, call.encoder(accepted), labels=label)
    image = await call.run_whole(model, TASK, "swapper", pixels, np.asarray, labels=label)
    return call.json(SwapAnswer(identity=request.identity, **await call.described(image)))
