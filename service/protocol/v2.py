"""The routes below `/v2`. A model is called `task.name`; its inputs and outputs are those of the task's graphs, joined."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from service import __version__, bodies, problems
from service.call import Call, CurrentCall
from service.contract.manifest import Port
from service.engine.chain import Chain, chain_of
from service.engine.store import Model, Store
from service.problems import Code, Limit, ProblemError, invalid
from service.protocol import tensors

router = APIRouter(prefix="/v2", tags=["open inference protocol"])

PLATFORM = "onnxruntime_onnx"


class ServerMetadata(BaseModel):
    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class TensorConfig(BaseModel):
    name: str
    data_type: str
    dims: list[int]


class ModelConfig(BaseModel):
    """Triton's model configuration, as far as it says something here."""

    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: list[TensorConfig]
    output: list[TensorConfig]


@router.get("", operation_id="server_metadata", responses=problems.documented(401, 429), summary="What this server is")
async def metadata() -> ServerMetadata:
    return ServerMetadata(name="atelier", version=__version__, extensions=["binary_tensor_data", "model_configuration"])


_EMPTY: dict[str, Any] = {"response_class": Response, "status_code": 200}


@router.get("/health/live", operation_id="server_live", summary="Does the process turn", **_EMPTY)
async def live() -> Response:
    return Response()


@router.get("/health/ready", operation_id="server_ready", responses={503: {}}, summary="Is every model that was asked for served", **_EMPTY)
async def ready(request: Request) -> Response:
    store: Store = request.app.state.store
    return Response(status_code=200 if store.ready else 503)


@router.get("/models/{name}", responses=problems.documented(401, 404, 422, 429, 503), summary="A model's inputs and outputs")
@router.get("/models/{name}/versions/{version}", include_in_schema=False)
async def model_metadata(request: Request, name: str) -> ModelMetadata:
    _, model, chain = _find(request, name)
    return ModelMetadata(
        name=name,
        versions=[model.manifest.version],
        platform=PLATFORM,
        inputs=[_described(port) for port in chain.inputs],
        outputs=[_described(port) for port in chain.outputs],
    )


@router.get(
    "/models/{name}/ready",
    operation_id="model_ready",
    responses=problems.documented(401, 404, 422, 429, 503),
    summary="Is a model served",
    **_EMPTY,
)
@router.get("/models/{name}/versions/{version}/ready", include_in_schema=False)
async def model_ready(request: Request, name: str) -> Response:
    _find(request, name)
    return Response()


@router.get(
    "/models/{name}/config",
    operation_id="model_config",
    responses=problems.documented(401, 404, 422, 429, 503),
    summary="Triton's model configuration",
)
@router.get("/models/{name}/versions/{version}/config", include_in_schema=False)
async def configuration(request: Request, name: str) -> ModelConfig:
    _, model, chain = _find(request, name)
    return ModelConfig(
        name=name,
        platform=PLATFORM,
        backend="onnxruntime",
        max_batch_size=model.most,
        input=[_configured(port) for port in chain.inputs],
        output=[_configured(port) for port in chain.outputs],
    )


@router.post(
    "/models/{name}/infer",
    response_model=tensors.InferenceResponse,
    responses=problems.documented(401, 404, 408, 413, 422, 429, 500, 503, 504),
    openapi_extra={
        "requestBody": {"required": True, "content": {bodies.JSON: {"schema": {"$ref": "#/components/schemas/InferenceRequest"}}}}
    },
    summary="Run a model on tensors",
)
@router.post("/models/{name}/versions/{version}/infer", include_in_schema=False)
async def infer(request: Request, call: CurrentCall, name: str) -> Response:
    """Tensors as JSON, or with the binary tensor data extension as raw bytes after the JSON. A batch is at most as large as
    the model's configuration says."""
    content = await bodies.whole(request)
    task, found, chain = _find(request, name)
    model = call.model(task, found.name)
    header = request.headers.get(tensors.HEADER_LENGTH)
    asked = await call.work("decode", partial(tensors.parse, content, header, chain.inputs, chain.outputs))
    _check_size(asked.arrays, model)
    made = await _run(call, model, chain, asked.arrays)
    body, head = await call.work("encode", partial(tensors.render, asked, made, name, model.manifest.version))
    headers = {} if head is None else {tensors.HEADER_LENGTH: str(head)}
    return Response(body, media_type=bodies.JSON if head is None else "application/octet-stream", headers=headers)


def _find(request: Request, name: str) -> tuple[str, Model, Chain]:
    store: Store = request.app.state.store
    version = request.path_params.get("version")
    task, _, model_name = name.partition(".")
    if task not in store.tasks or not model_name:
        known = ", ".join(f"{task}.{model.name}" for task in store.tasks for model in store.serving(task)) or "none"
        raise ProblemError(Code.UNKNOWN_MODEL, f"There is no model {name[:80]}; a name is task.name, and there is: {known}.")
    model = Call.find(store, task, model_name)
    if version is not None and version != model.manifest.version:
        raise ProblemError(Code.UNKNOWN_MODEL, f"{name} has no version {version[:40]}; there is {model.manifest.version}.")
    return task, model, chain_of(model, task, store.tasks[task])


def _check_size(arrays: dict[str, Any], model: Model) -> None:
    rows = len(next(iter(arrays.values())))
    if rows > model.most:
        limit = Limit(name="batch", value=model.most)
        raise ProblemError(Code.IMAGE_TOO_LARGE, f"A batch of {rows} is larger than {model.most}.", limit=limit)
    labels = arrays.get("labels")
    if labels is not None and not ((labels >= 0) & (labels < len(model.manifest.classes))).all():
        raise invalid(["body", "inputs"], f"labels are 0 to {len(model.manifest.classes) - 1}")


async def _run(call: Call, model: Model, chain: Chain, arrays: dict[str, Any]) -> dict[str, Any]:
    known = dict(arrays)
    for stage in chain.stages:
        known |= await call.run_graph(model, stage.graph, {port: known[tensor] for port, tensor in stage.takes.items()})
    return known


def _described(port: Port) -> TensorMetadata:
    return TensorMetadata(name=port.name, datatype=tensors.DATATYPES[port.dtype], shape=[-1, *port.item])


def _configured(port: Port) -> TensorConfig:
    return TensorConfig(name=port.name, data_type=f"TYPE_{tensors.DATATYPES[port.dtype]}", dims=list(port.item))
