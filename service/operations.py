"""For operators: health, and the catalogue of models."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from service import problems
from service.contract.manifest import Manifest, Metric, Port
from service.engine.store import Model, Store
from service.problems import Code, ProblemError

router = APIRouter(tags=["operations"])


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
    failure: str | None = Field(default=None, description="why it is not served")


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


@router.get("/", include_in_schema=False)
async def home() -> Response:
    return RedirectResponse("/docs")


@router.get("/health/live", summary="Does the process turn")
async def live() -> Live:
    return Live(status="live")


@router.get("/health/ready", response_model=Ready, responses={503: {"model": Ready}}, summary="Is every model that was asked for served")
async def ready(request: Request) -> Response:
    """200 when what `ATELIER_LOAD` and `ATELIER_PROVIDER` ask for is loaded and warm, else 503; the body says what is missing."""
    store: Store = request.app.state.store
    served = [_health(model) for model in sorted(store.models.values(), key=lambda model: model.name)]
    failed = [ModelHealth(name=name, ready=False, failure=failure) for name, failure in sorted(store.failures.items())]
    answer = Ready(ready=store.ready, loaded=store.loaded, models=served + failed)
    return JSONResponse(answer.model_dump(exclude_none=True), 200 if store.ready else 503)


@router.get("/v1/models", response_model_exclude_none=True, summary="List the models")
async def list_models(request: Request) -> Catalogue:
    """One entry for each task of each model; the default of a task comes first."""
    store: Store = request.app.state.store
    entries = []
    for task in store.tasks:
        for model in store.serving(task):
            entries.append(_entry(task, model, model.name == store.default(task)))
    return Catalogue(models=entries)


@router.get(
    "/v1/models/{name}", response_model_exclude_none=True, responses=problems.documented(404, 422), summary="Show one model's manifest"
)
async def show_model(request: Request, name: str) -> Manifest:
    store: Store = request.app.state.store
    if name not in store.models:
        known = ", ".join(sorted(store.models)) or "none"
        raise ProblemError(Code.UNKNOWN_MODEL, f"There is no model {name}; there is: {known}.")
    return store.models[name].manifest


def _health(model: Model) -> ModelHealth:
    return ModelHealth(
        name=model.name,
        ready=True,
        tasks=list(model.manifest.tasks),
        provider=model.provider,
        precision="float32",
        warmed={name: sorted({1, batcher.most}) for name, batcher in model.batchers.items()},
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
