"""A picture as a vector: near vectors, alike pictures."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field
from starlette.responses import Response

from service import bodies
from service.call import CurrentCall
from service.engine.store import Role

TASK = "embed"
ROLES = {"encoder": Role(frozenset({"images"}), frozenset({"embedding"}))}

router = bodies.router(TASK)


class EmbedRequest(bodies.Body):
    image: bodies.Picture
    model: bodies.Model = None


class EmbedAnswer(BaseModel):
    embedding: list[float]
    dimension: int = Field(description="how many numbers the embedding has")
    model: str


REQUEST = EmbedRequest


@router.post("/v1/embed", **bodies.operation(EmbedRequest, EmbedAnswer, "Embed a picture"))
async def embed(call: CurrentCall, request: Annotated[EmbedRequest, bodies.body(EmbedRequest)]) -> Response:
    """The picture's place in the model's embedding space."""
    call.accepts_json()
    model = call.model(TASK, request.model)
    pixels = await call.pixels(request.image, model)
    embedding = (await call.run(model, TASK, "encoder", images=pixels[None]))["embedding"][0]
    return call.json(EmbedAnswer(embedding=embedding.tolist(), dimension=len(embedding), model=model.name))
