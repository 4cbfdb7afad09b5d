"""For operators: health, and the catalogue of models."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service import problems
from service.call import Call
from service.contract.manifest import Manifest, Metric, Port
from service.engine.store import Model, Store
from service.metrics import MEDIA_TYPE, Metrics
from service.problems import Code, ProblemError

router = APIRouter()


class Live(BaseModel):
    status: str


class ModelHealth(BaseModel):
    name: str
    ready: bool
    tasks: list[str] = Field(default_factory=list)
    provider: str | None = None
    precision: str | None = None
    warmed: dict[str, list[int]] = Field(default_factory=dict, description="the batch sizes that each graph was warmed with")
    queue_depth: int = 0
    failure: str | None = Field(default=None, description="why it is not served, or why what its folder has now is not")


class Ready(BaseModel):
    ready: bool
    loaded: bool = Field(description="the models folder was read to its end, well or badly")
    models: list[ModelHealth]


class CatalogueEntry(BaseModel):
    task: str
    name: str
    default: bool
    digest: str
    title: str
    description: str
    inputs: list[Port]
    outputs: list[Port]
    latent_dimension: int | None = None
    classes: list[str]
    license: str
    metrics: dict[str, Metric]


class Catalogue(BaseModel):
    models: list[CatalogueEntry]


@router.head("/health/live", include_in_schema=False)
@router.get("/health/live", tags=["health"], summary="Does the process turn")
async def live() -> Live:
    return Live(status="live")


@router.head("/health/ready", include_in_schema=False)
@router.get(
    "/health/ready",
    tags=["health"],
    response_model=Ready,
    responses={503: {"model": Ready}},
    summary="Is every model that was asked for served",
)
async def ready(request: Request) -> Response:
    """200 when what `ATELIER_LOAD` and `ATELIER_PROVIDER` ask for is loaded and warm, else 503; the body says what is missing."""
    store: Store = request.app.state.store
    served = [_health(model, store.failures.get(name)) for name, model in sorted(store.models.items())]
    failed = [ModelHealth(name=name, ready=False, failure=why) for name, why in sorted(store.failures.items()) if name not in store.models]
    answer = Ready(ready=store.ready, loaded=store.loaded, models=served + failed)
    return JSONResponse(answer.model_dump(exclude_none=True), 200 if store.ready else 503)


class Reloaded(BaseModel):
    """What reading the models folder again did, by names of models."""

    added: list[str]
    replaced: list[str]
    removed: list[str]
    unchanged: list[str]
    failed: dict[str, str] = Field(description="why a folder's present content is not served; an earlier one may still be")


@router.post("/v1/models/reload", tags=["catalogue"], responses=problems.documented(401, 403, 429), summary="Read the models folder again")
async def reload_models(request: Request) -> Reloaded:
    """Swaps at once what changed; requests in flight end on the model that they began with. For admins' keys."""
    store: Store = request.app.state.store
    return Reloaded(**dataclasses.asdict(await store.load()))


@router.get(
    "/v1/models", tags=["catalogue"], response_model_exclude_none=True, responses=problems.documented(401, 429), summary="List the models"
)
async def list_models(request: Request) -> Catalogue:
    """One entry for each task of each model; the default of a task comes first."""
    store: Store = request.app.state.store
    entries = []
    for task in store.tasks:
        for model in store.serving(task):
            entries.append(_entry(task, model, model.name == store.default(task)))
    return Catalogue(models=entries)


@router.get(
    "/v1/models/{name}",
    tags=["catalogue"],
    response_model_exclude_none=True,
    responses=problems.documented(401, 404, 422, 429, 503),
    summary="Show one model's manifest",
)
async def show_model(request: Request, name: str) -> Manifest:
    store: Store = request.app.state.store
    if name not in store.models and name in store.failures:
        raise ProblemError(Code.MODEL_UNAVAILABLE, f"{name} is not served: {store.failures[name]}.", retry_after=5)
    if name not in store.models:
        known = ", ".join(sorted(store.models)) or "none"
        raise ProblemError(Code.UNKNOWN_MODEL, f"There is no model {name[:80]}; there is: {known}.")
    return store.models[name].manifest


class Progress(BaseModel):
    """How far a request is."""

    state: Literal["reading", "queued", "running", "finishing"]
    position: int = Field(description="items that stand before it; 0 once it runs")
    done: int = Field(description="of its items, such as pictures or tiles")
    total: int


@router.get(
    "/v1/requests/{id:path}", tags=["pictures"], responses=problems.documented(401, 404, 422, 429), summary="Show how far a request is"
)
async def show_request(request: Request, id: str) -> Progress:
    """For progress bars: send a request with an `X-Request-Id` of your own, and ask for that while it is in work."""
    call: Call | None = request.app.state.working.get(id)
    if call is None:
        raise ProblemError(Code.NOT_FOUND, f"No request {id[:128]} is in work.")
    state, position, done, total = call.progress()
    return Progress.model_validate({"state": state, "position": position, "done": done, "total": total})


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    found: Metrics = request.app.state.metrics
    return Response(found.text(), media_type=MEDIA_TYPE)


def _health(model: Model, failure: str | None) -> ModelHealth:
    return ModelHealth(
        name=model.name,
        ready=model.healthy,
        failure=failure,
        tasks=list(model.manifest.tasks),
        provider=model.provider,
        precision=model.precision,
        warmed=model.warmed,
        queue_depth=sum(batcher.depth for batcher in model.batchers.values()),
    )


def _entry(task: str, model: Model, default: bool) -> CatalogueEntry:
    manifest = model.manifest
    graphs: list[Any] = [manifest.graphs[graph] for graph in manifest.tasks[task].values()]
    return CatalogueEntry(
        task=task,
        name=manifest.name,
        default=default,
        digest=model.digest,
        title=manifest.title,
        description=manifest.description,
        inputs=list(graphs[0].inputs),
        outputs=list(graphs[-1].outputs),
        latent_dimension=manifest.latent_dimension,
        classes=list(manifest.classes),
        license=manifest.license,
        metrics=manifest.metrics,
    )
