"""A picture with what a mask covers painted anew."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field
from starlette.responses import Response

from service import bodies, media
from service.call import CurrentCall
from service.engine.store import Role
from service.problems import invalid
from service.provenance import Source

TASK = "inpaint"
ROLES = {"inpainter": Role(frozenset({"images", "masks"}), frozenset({"inpainted"}))}

router = bodies.router()


class InpaintRequest(bodies.Body):
    image: bodies.Picture
    mask: bodies.Picture
    model: bodies.Model = None


class InpaintAnswer(BaseModel):
    image: str = Field(description="base64 PNG of the input's size, equal to the input outside the mask")
    width: int
    height: int
    model: str


REQUEST = InpaintRequest


@router.post("/v1/inpaint", **bodies.picture_operation(InpaintRequest, "Inpaint a picture"))
async def inpaint(call: CurrentCall, request: Annotated[InpaintRequest, bodies.body(InpaintRequest)]) -> Response:
    """Paints what the mask covers, from what is around it.

    `mask` is a picture of the same size, brighter than half where is to be painted (what is transparent is not). Everywhere else the
    answer is the input as it was decoded (upright, sRGB, 8 bits, on white), pixel for pixel in PNG and WebP, which lose nothing. Holes are
    looked at at the picture's own scale with their surroundings; large ones smaller.
    """
    accepted = call.accepts(media.PNG)
    call.source = Source.MODEL_AND_CALLER
    model = call.model(TASK, request.model)
    pixels = await call.pixels(request.image, model, fitted=False)
    height, width, _ = pixels.shape
    call.room_for(height, width, accepted)
    mask = await call.mask(request.mask, model)
    if mask.shape != (height, width):
        raise invalid(["body", "mask"], f"is {mask.shape[1]} x {mask.shape[0]}; the picture is {width} x {height}")
    if not mask.any():
        raise invalid(["body", "mask"], "no pixel is brighter than half (what is transparent is not), so there is nothing to paint")
    if mask.all():
        raise invalid(["body", "mask"], "every pixel is brighter than half, so nothing is left to go by")
    image = await call.fill_holes(model, TASK, "inpainter", pixels, mask)
    if accepted != media.JSON:
        return await call.picture(image, accepted)
    return call.json(InpaintAnswer(**await call.described(image)))
