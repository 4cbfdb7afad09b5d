"""A picture as a vector: near vectors, alike pictures."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import BaseModel, Field
from starlette.responses import Response

from service import bodies
from service.call import CurrentCall
from service.engine.store import Role

TASK = "embed"
ROLES = {"encoder": Role(frozenset({"images"}), frozenset({"embedding"}), optional=frozenset({"probabilities"}))}
TOLD = 5
"""Classes, of a model that knows any."""

router = bodies.router()


class EmbedRequest(bodies.Body):
    image: bodies.Picture
    model: bodies.Model = None


class Label(BaseModel):
    label: str
    probability: float


class EmbedAnswer(BaseModel):
    embedding: list[float]
    dimension: int = Field(description="how many numbers the embedding has")
    labels: list[Label] | None = Field(default=None, description="the five likeliest classes, likeliest first; absent where there are none")
    model: str


REQUEST = EmbedRequest


@router.post("/v1/embed", **bodies.operation(EmbedRequest, EmbedAnswer, "Embed a picture"))
async def embed(call: CurrentCall, request: Annotated[EmbedRequest, bodies.body(EmbedRequest)]) -> Response:
    """The picture's place in the model's embedding space; from a model that tells kinds of things apart, also what it may show."""
    call.accepts_json()
    model = call.model(TASK, request.model)
    pixels = await call.pixels(request.image, model)
    answer = await call.run(model, TASK, "encoder", images=pixels[None])
    embedding, labels = answer["embedding"][0], None
    if "probabilities" in answer:
        labels = _likeliest(answer["probabilities"][0], model.manifest.classes)
    return call.json(EmbedAnswer(embedding=embedding.tolist(), dimension=len(embedding), labels=labels, model=model.name))


def _likeliest(probabilities: np.ndarray, classes: tuple[str, ...]) -> list[Label]:
    order = np.argsort(-probabilities, kind="stable")[:TOLD]
    return [Label(label=classes[index], probability=float(probabilities[index])) for index in order]
