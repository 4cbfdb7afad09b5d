"""The same application on Ray Serve: one deployment for HTTP, and one for each task that the models folder serves.

`serve run service.cluster:app`, or with a configuration file: docker/serve.yaml. A task has the whole application in it, with the
models of that task; HTTP has keys, rates, limits, the page and the document, and passes requests on as they came, bodies as bytes. So
settings, problems and headers are those of a single process. Settings come from the environment, and arguments (`models=PATH`) win over it.

"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import ray
from fastapi import FastAPI
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import bodies, local, logs, settings
from service.app import create_app
from service.call import TIMEOUT_HEADER, Call
from service.contract import manifest as manifests
from service.metrics import MEDIA_TYPE, REJECTED
from service.problems import Code, ProblemError
from service.settings import Settings, SettingsError
from service.tasks import TASKS

HTTP = "http"
"""The name of the deployment that takes requests."""
ONGOING = 64
"""Requests that one replica has in work: its batches form from them."""
TARGET = 16
"""Requests in work for each replica from which on there are to be more of them."""
CPUS = 0.1
"""Of a replica, where the configuration does not say: so little that all tasks find room on a small machine."""
REPLICAS = 8
"""Of a task, at most, where the configuration does not say."""
PATIENCE = 5.0
"""Seconds that what asks all replicas waits for them."""

Answer = tuple[int, list[tuple[bytes, bytes]], bytes]
"""Status, headers and body."""
_OURS = (b"x-request-id", b"x-content-type-options", b"content-length")
"""Headers that the deployment of HTTP gives its answers itself."""


def app(arguments: dict[str, str]) -> serve.Application:
    """What Serve runs: `serve run service.cluster:app [SETTING=VALUE …]`.

    Args:
        arguments: settings by their names in lower case, and `replicas`, how many each task has; without it their number follows the load.

    Raises:
        SettingsError: one that cannot be used or is not known, or the folder has no models, or not those that are asked for.
    """
    given = dict(arguments)
    replicas = given.pop("replicas", None)
    if unknown := sorted(given.keys() - Settings.model_fields.keys()):
        raise SettingsError(f"{unknown[0]}={given[unknown[0]]}: there is no such setting")
    configuration = settings.read(**given)
    tasks = tasks_of(configuration)
    options: dict[str, Any] = {
        "ray_actor_options": {"num_cpus": CPUS},
        "max_ongoing_requests": ONGOING,
        "max_queued_requests": configuration.queue_limit,
        "graceful_shutdown_timeout_s": configuration.grace_seconds,
    }
    if replicas is None:
        options["autoscaling_config"] = {"min_replicas": 1, "max_replicas": REPLICAS, "target_ongoing_requests": TARGET}
    elif str(replicas).isdecimal() and int(replicas) > 0:
        options["num_replicas"] = int(replicas)
    else:
        raise SettingsError(f"replicas={replicas}: has to be a number from 1 on")
    bound = {task: _deployment(Task, name=task, **options).bind(configuration, task) for task in tasks}
    http = _deployment(serve.ingress()(Http), name=HTTP, ray_actor_options={"num_cpus": CPUS}, max_ongoing_requests=8 * ONGOING)
    return http.bind(configuration, bound)


def _deployment(of: Callable[..., Any], **options: Any) -> serve.Deployment:
    made: serve.Deployment = serve.deployment(**options)(of)
    return made


def tasks_of(configuration: Settings) -> list[str]:
    """The tasks that the models folder has models for, of those that `ATELIER_LOAD` asks for, in the order of TASKS.

    Raises:
        SettingsError: there is nothing, or not all of what is asked for.
    """
    served = dict(_served(configuration))
    found = {task for tasks in served.values() for task in tasks}
    if missing := [wanted for wanted in configuration.load if wanted not in served and wanted not in found]:
        raise SettingsError(f"ATELIER_LOAD names {missing[0]}, but no folder of {configuration.models} has it")
    if not found:
        raise SettingsError(f"ATELIER_MODELS={configuration.models} has no models")
    return [task.TASK for task in TASKS if task.TASK in found]


def _served(configuration: Settings) -> Iterator[tuple[str, list[str]]]:
    """The models of the folder that are asked for, and of each the tasks. What cannot be read the replicas tell."""
    wanted = configuration.load
    for model in manifests.found(configuration.models):
        yield model.name, [task for task in model.tasks if not wanted or model.name in wanted or task in wanted]


class Task:
    """One replica of one task: the application with that task's models, in a process of its own."""

    async def __init__(self, configuration: Settings, task: str) -> None:  # type: ignore[misc]  # as Serve allows
        """Loads the models.

        Raises:
            RuntimeError: none of them can be served, or one that is asked for by name.
        """
        logs.configure(configuration.log_format)
        cores = int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1))
        own = {"threads": configuration.threads or max(1, cores), "load": _asked_for(configuration, task)}
        self._demanding = bool(configuration.load)
        self._open = AsyncExitStack()
        self._app = await self._open.enter_async_context(local.started(configuration.model_copy(update=own)))
        self._client = await self._open.enter_async_context(local.client_of(self._app))
        self._lost = ""
        self._app.state.store.lost = self._lose
        if not self._ready:
            raise RuntimeError("; ".join(self._app.state.store.failures.values()) or f"no model serves {task}")

    async def ask(self, method: str, target: str, headers: list[tuple[bytes, bytes]], body: bytes) -> Answer:
        """A request as it came, and the answer as it goes."""
        answer = await self._client.request(method, target, headers=headers, content=body)
        return answer.status_code, [(name.lower(), value) for name, value in answer.headers.raw], answer.content

    async def health(self) -> dict[str, Any]:
        """What `/health/ready` says of this replica."""
        _, _, content = await self.ask("GET", "/health/ready", [], b"")
        return {**json.loads(content), "ready": self._ready}

    async def reload(self) -> dict[str, Any]:
        """Reads the models folder again; what that did."""
        return dataclasses.asdict(await self._app.state.store.load())

    async def metrics(self) -> tuple[str, str]:
        """This replica's name, and its series."""
        return serve.get_replica_context().replica_tag, self._app.state.metrics.text().decode()

    @property
    def _ready(self) -> bool:
        """A folder that is broken, and that nobody asked for by name, keeps nothing from serving."""
        store = self._app.state.store
        return bool(store.ready if self._demanding else store.models and all(model.healthy for model in store.models.values()))

    def _lose(self, model: str, why: str) -> None:
        self._lost = f"{model}: {why}"

    async def check_health(self) -> None:
        """Serve starts another replica in place of one that this fails for."""
        if self._lost:
            raise RuntimeError(self._lost)

    async def __del__(self) -> None:
        await self._open.aclose()


def _asked_for(configuration: Settings, task: str) -> tuple[str, ...]:
    """What a replica of a task loads: all its models, or those of them that the settings name."""
    if not configuration.load or task in configuration.load:
        return (task,)
    return tuple(name for name, tasks in _served(configuration) if task in tasks)


class Http:
    """One replica of what takes requests: the application without models, some of whose paths ask the tasks' replicas."""

    def __init__(self, configuration: Settings, tasks: dict[str, DeploymentHandle[Any]]) -> None:
        self.configuration, self.tasks = configuration, tasks

    def __serve_build_asgi_app__(self) -> FastAPI:
        logs.configure(self.configuration.log_format)
        app = create_app(self.configuration, loads=False)
        app.state.store.loaded = True  # it has none, and waits for none
        app.router.routes[:0] = [*self._passed_on(), *self._gathered()]
        app.add_middleware(_Unnamed)
        self._app = app
        return app

    def _passed_on(self) -> Iterator[Route]:
        """Routes that one replica of a task answers."""
        for task, handle in self.tasks.items():
            yield _route(f"/v1/{task}", partial(_passed, handle, task), "POST")
            yield from _v2_routes(f"{task}.{{name}}", partial(_passed, handle, task))
        yield from _v2_routes("{name}", self._unknown)

    def _gathered(self) -> Iterator[Route]:
        """Routes that all replicas answer together."""
        yield _route("/health/ready", self._ready, "GET", "HEAD")
        yield _route("/v2/health/ready", self._v2_ready)
        yield _route("/metrics", self._metrics)
        yield _route("/v1/models", self._list_models)
        yield _route("/v1/models/reload", self._reload, "POST")
        yield _route("/v1/models/{name}", self._show_model)
        yield _route("/v1/requests/{id:path}", self._show_request)

    async def _ready(self, request: Request) -> Response:
        """Every task has a replica, and all of those are ready; a model that several serve is told of once, at its worst."""
        found = await asyncio.gather(*(_all(handle, "health") for handle in self.tasks.values()))
        models: dict[str, dict[str, Any]] = {}
        for replica in (replica for replicas in found for replica in replicas):
            for model in replica["models"]:
                if model["name"] not in models or not model["ready"]:
                    models[model["name"]] = model
        ready = all(replicas and all(replica["ready"] for replica in replicas) for replicas in found)
        body = {"ready": ready, "loaded": all(found), "models": [models[name] for name in sorted(models)]}
        return JSONResponse(body, 200 if ready else 503)

    async def _v2_ready(self, request: Request) -> Response:
        return Response(status_code=(await self._ready(request)).status_code)

    async def _metrics(self, request: Request) -> Response:
        """All replicas' series, each with the replica's name."""
        ours: DeploymentHandle[Any] = serve.get_deployment_handle(HTTP, serve.get_replica_context().app_name)
        found = await asyncio.gather(*(_all(handle, "metrics") for handle in (ours, *self.tasks.values())))
        return Response(joined(replica for replicas in found for replica in replicas), media_type=MEDIA_TYPE)

    async def metrics(self) -> tuple[str, str]:
        """This replica's name, and what it refused itself. Its other series tell of requests that a task's replica counts too."""
        refused = self._app.state.metrics.registry.restricted_registry([f"{REJECTED}_total"])
        return serve.get_replica_context().replica_tag, generate_latest(refused).decode()

    async def _list_models(self, request: Request) -> Response:
        return JSONResponse({"models": await self._catalogue()})

    async def _catalogue(self) -> list[dict[str, Any]]:
        found = await asyncio.gather(*(_one(handle, "GET", "/v1/models") for handle in self.tasks.values()))
        of_tasks = zip(self.tasks, (json.loads(content)["models"] for _, _, content in found), strict=True)
        return [entry for task, entries in of_tasks for entry in entries if entry["task"] == task]

    async def _show_model(self, request: Request) -> Response:
        """The first answer that is no refusal; else one that says that it is there."""
        target, name = _target(request), request.path_params["name"]
        found = await asyncio.gather(*(_one(handle, "GET", target) for handle in self.tasks.values()))
        best = min(found, key=lambda answer: (answer[0] != 200, answer[0] == 404))
        if best[0] != 404:
            return _response(best)
        known = ", ".join(sorted({entry["name"] for entry in await self._catalogue()})) or "none"
        raise ProblemError(Code.UNKNOWN_MODEL, f"There is no model {name[:80]}; there is: {known}.")

    async def _unknown(self, request: Request) -> Response:
        known = ", ".join(f"{entry['task']}.{entry['name']}" for entry in await self._catalogue()) or "none"
        name = request.path_params["name"][:80]
        raise ProblemError(Code.UNKNOWN_MODEL, f"There is no model {name}; a name is task.name, and there is: {known}.")

    async def _show_request(self, request: Request) -> Response:
        found = await asyncio.gather(*(_all(handle, "ask", "GET", _target(request), [], b"") for handle in self.tasks.values()))
        for answer in (answer for answers in found for answer in answers):
            if answer[0] == 200:
                return _response(answer)
        raise ProblemError(Code.NOT_FOUND, f"No request {request.path_params['id'][:128]} is in work.")

    async def _reload(self, request: Request) -> Response:
        """All replicas read the folder again; a model that one of them has replaced counts as replaced."""
        found = await asyncio.gather(*(_all(handle, "reload", seconds=None) for handle in self.tasks.values()))
        changes = [change for replicas in found for change in replicas]
        named = {how: {name for change in changes for name in change[how]} for how in ("added", "replaced", "removed", "unchanged")}
        named["unchanged"] -= named["added"] | named["replaced"] | named["removed"]
        failed = {name: why for change in changes for name, why in change["failed"].items()}
        return JSONResponse({how: sorted(names) for how, names in named.items()} | {"failed": failed})


def _v2_routes(name: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Iterator[Route]:
    for version, end in product(("", "/versions/{version}"), ("", "/ready", "/config", "/infer")):
        yield _route(f"/v2/models/{name}{version}{end}", endpoint, "POST" if end == "/infer" else "GET")


def _route(path: str, endpoint: Callable[[Request], Awaitable[Response]], *methods: str) -> Route:
    """A route of these methods alone, without any of GET: Starlette itself adds HEAD to that."""
    route = Route(path, endpoint)
    route.methods = set(methods or ("GET",))
    return route


async def _passed(handle: DeploymentHandle[Any], task: str, request: Request) -> Response:
    """A request passed on to one replica, with the time that is left to it."""
    call = Call(request)
    call.task = task
    content = await bodies.whole(request)
    headers = [(name, value) for name, value in request.headers.raw if name != b"x-request-id"]
    if call.deadline is not None:
        call.in_time()
        left = f"{call.deadline - time.perf_counter():.6f}".encode()
        headers = [(name, left if name == TIMEOUT_HEADER.lower().encode() else value) for name, value in headers]
    headers.append((b"x-request-id", request.state.id.encode()))
    return _response(await _one(handle, request.method, _target(request), headers, content))


def _target(request: Request) -> str:
    query = request.url.query
    return (request.scope.get("raw_path") or request.url.path.encode()).decode("latin-1") + (f"?{query}" if query else "")


def _response(answer: Answer) -> Response:
    status, headers, content = answer
    response = Response(content, status)
    response.raw_headers += [(name, value) for name, value in headers if name not in _OURS]
    return response


async def _one(
    handle: DeploymentHandle[Any], method: str, target: str, headers: list[tuple[bytes, bytes]] | None = None, content: bytes = b""
) -> Answer:
    """What one replica answers. Where the caller goes away, it stops.

    Raises:
        ProblemError: 503, all have as much to do as they may, or the one that was asked was lost.
    """
    response = handle.ask.remote(method, target, headers or [], content)
    try:
        answer: Answer = await response
        return answer
    except asyncio.CancelledError:
        response.cancel()  # type: ignore[no-untyped-call]
        raise
    except BackPressureError as error:
        raise ProblemError(Code.OVERLOADED, "All replicas have as much to do as they may.", retry_after=1) from error
    except (RayActorError, DeploymentUnavailableError) as error:
        raise ProblemError(Code.MODEL_UNAVAILABLE, "The replica that worked on this was lost.", retry_after=1) from error


async def _all(handle: DeploymentHandle[Any], method: str, *arguments: Any, seconds: float | None = PATIENCE) -> list[Any]:
    """What all replicas say; of those that are being lost, nothing."""
    try:
        found = await handle.broadcast(method, *arguments).results_async(timeout_s=seconds, return_exceptions=True)
    except TimeoutError:
        return []
    return [one for one in found if not isinstance(one, BaseException)]


class _Unnamed:
    """ASGI middleware: Serve's proxy itself names the request in its answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [(name, value) for name, value in message["headers"] if name != b"x-request-id"]
            await send(message)

        await self.app(scope, receive, sent)


def joined(series: Iterable[tuple[str, str]]) -> bytes:
    """Prometheus's texts of several replicas as one, each series with the label `replica`."""
    families: dict[str, Metric] = {}
    for replica, text in series:
        for family in text_string_to_metric_families(text):
            known = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            known.samples += [sample._replace(labels={**sample.labels, "replica": replica}) for sample in family.samples]
    return generate_latest(_Joined(families.values()))


@dataclass(frozen=True)
class _Joined:
    """What `generate_latest` wants to read from."""

    families: Collection[Metric]

    def collect(self) -> Iterator[Metric]:
        yield from self.families
