"""python -m service            serves
python -m service run TASK …    does one task on files without a server
python -m service batch TASK …  does one task on a folder of pictures, on Ray
python -m service openapi    prints the OpenAPI document
python -m service doctor     tells what models would run on, and what is missing
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import json
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import httpx
import uvicorn

from service import __version__, bodies, doctor, local, logs, media, settings, telemetry
from service.app import create_app
from service.connection import Connection
from service.engine import hardware
from service.settings import Settings, SettingsError
from service.tasks import TASKS

logger = logging.getLogger("atelier")

_ENDINGS = {f".{name}": kind for name, kind in media.FORMATS.items()} | {".jpg": media.JPEG, ".json": media.JSON}


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 the task failed or the doctor found a fault, 2 a setting or an option is wrong, 4 a model's session
    broke for good, so that a supervisor should start the server anew. (3, from uvicorn: it cannot listen.)"""
    options = _parser().parse_args(arguments)
    try:
        configuration = settings.read()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    if options.command == "run":
        logs.configure(configuration.log_format, logging.CRITICAL)  # what failed is told by the answer
        return _run(configuration, options)
    if options.command == "batch":
        logs.configure(configuration.log_format, logging.CRITICAL)
        return _batch(configuration, options)
    if options.command == "doctor":
        logs.configure(configuration.log_format, logging.CRITICAL)
        return doctor.examine(configuration)
    if options.command == "openapi":
        print(json.dumps(create_app(configuration).openapi(), indent=2))
        return 0
    logs.configure(configuration.log_format)
    return _serve(configuration)


LOCAL = ("127.0.0.1", "::1", "localhost")
LOST = 4
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""glibc's numbers of the settings (malloc.h)."""
LARGE, LARGE_BESIDE_GPU = 1_000_000, 8_000_000
"""From how many bytes on a piece of memory is taken from the system by itself, and given back by itself."""
KEPT_BESIDE_GPU = 64_000_000
"""Of the memory that each thread has for smaller pieces, how many bytes that are free are not given back."""
LINGER_SECONDS = 0.3
SWITCH_SECONDS = 0.00005
"""How long a thread keeps the interpreter from another that wants it. Python's 5 milliseconds are as much as a run on a session
takes: its thread would wait as long to hand out the answers and take the next run, and once for each thread that waits beside it."""


class _Server(uvicorn.Server):
    """Uvicorn's, whose readiness falls as soon as it is told to stop, and which ends when a model's session is lost."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.lost = False
        self._listening = list[socket.socket]()
        self._connecting = set[asyncio.Task[Any]]()  # of which the loop keeps weak references only

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        app: Any = self.config.app
        app.state.store.draining = True
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host = self.config.host
        name = "localhost" if host in (*LOCAL, "0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        logger.info("open http://%s:%d in a browser", name, self.servers[0].sockets[0].getsockname()[1])
        if sys.platform == "win32":  # where there is no uvloop
            return
        self._listening = [socket.socket(fileno=os.dup(one.fileno())) for server in self.servers for one in server.sockets]
        for one in self._listening:
            one.setblocking(False)
            asyncio.get_running_loop().add_reader(one, self._accept_all, one)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for one in self._listening:
            asyncio.get_running_loop().remove_reader(one)
            self._accept_all(one)  # closing it would reset them
            one.close()
        await asyncio.sleep(LINGER_SECONDS)  # what was sent before its sender could know is read yet, and answered
        await super().shutdown(sockets)

    def _accept_all(self, listening: socket.socket) -> None:
        """Takes whom the kernel has connected. The event loop (uvloop's) accepts one at each turn: of many who come while it is busy, the
        last would wait for as many turns."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):  # there is no other, or there are no more files
            for _ in range(self.config.backlog):
                connecting = loop.create_task(loop.connect_accepted_socket(self._protocol, listening.accept()[0]))
                self._connecting.add(connecting)
                connecting.add_done_callback(self._connected)

    def _connected(self, connecting: asyncio.Task[Any]) -> None:
        self._connecting.discard(connecting)
        error = None if connecting.cancelled() else connecting.exception()
        if error is not None and not isinstance(error, OSError):  # a caller who is gone again is no error of the server's
            logger.error("a connection could not be taken", exc_info=error)

    def _protocol(self) -> asyncio.Protocol:
        return Connection(self.config, self.server_state, self.lifespan.state)

    def end(self, model: str, why: str) -> None:
        self.lost = self.should_exit = True


def _serve(configuration: Settings) -> int:
    if not configuration.api_keys and configuration.host not in LOCAL:
        logger.warning("listening on %s without keys: anybody who reaches it may call (ATELIER_API_KEYS)", configuration.host)
    app = create_app(configuration)
    if telemetry.wanted():
        try:
            telemetry.instrument(app)
        except telemetry.TelemetryMissing as error:
            print(error, file=sys.stderr)
            return 2
    server = _Server(
        uvicorn.Config(
            app,
            host=configuration.host,
            port=configuration.port,
            http=Connection,
            ws="none",
            server_header=False,
            log_config=None,
            access_log=False,
            proxy_headers="FORWARDED_ALLOW_IPS" in os.environ,
            timeout_graceful_shutdown=max(0.0, configuration.grace_seconds - LINGER_SECONDS),  # type: ignore[arg-type]  # any number will do
        )
    )
    app.state.store.lost = server.end
    sys.setswitchinterval(SWITCH_SECONDS)
    _give_memory_back(configuration.provider != "cpu" and hardware.missing("cuda") is None)
    for caught in (signal.SIGTERM, signal.SIGINT):
        signal.signal(caught, lambda *_: None)  # uvicorn drains, then raises the signal again: a stop that was asked for is no failure
    server.run()
    if server.lost:  # perhaps in a run that does not end, which the interpreter would wait for
        logging.shutdown()
        os._exit(LOST)
    return 0 if server.started else 1


def _give_memory_back(beside_gpu: bool) -> None:
    """What large pictures took returns to the system as soon as they are gone. Left to itself, glibc learns from the first of them to keep
    them among small things, and the process grows with each new size.

    To give memory and to take it back costs the system milliseconds, in which it gives none to the process's other threads. Beside a GPU,
    which makes hundreds of pictures a second, those of common sizes stay in memory that the process keeps for the next ones.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_M_MMAP_THRESHOLD, LARGE_BESIDE_GPU if beside_gpu else LARGE)
            if beside_gpu:
                mallopt(_M_TRIM_THRESHOLD, KEPT_BESIDE_GPU)


def _chosen(options: argparse.Namespace) -> tuple[ModuleType, dict[str, Any]]:
    """The task, and those of its request's fields that were given."""
    task = next(task for task in TASKS if options.task == task.TASK)
    return task, {name: value for name, value in vars(options).items() if name in task.REQUEST.model_fields and value is not None}


def _run(configuration: Settings, options: argparse.Namespace) -> int:
    task, given = _chosen(options)
    accept = media.JSON if options.output is None else _ENDINGS.get(options.output.suffix.lower())
    if accept is None:
        print(f"{options.output}: the ending has to be one of {', '.join(_ENDINGS)}", file=sys.stderr)
        return 2
    try:
        files = {name: (Path(given[name]).name, Path(given.pop(name)).read_bytes()) for name in bodies.pictures_of(task.REQUEST)}
        answer = asyncio.run(_post(configuration, options.task, given, files, accept))
        if answer.status_code != 200:
            print(f"{options.task}: {answer.json()['detail']}", file=sys.stderr)
            return 1
        if options.output is None:
            print(json.dumps(answer.json(), indent=2))
        else:
            options.output.write_bytes(answer.content)
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


async def _post(configuration: Settings, task: str, fields: dict[str, Any], files: dict[str, Any], accept: str) -> httpx.Response:
    only_this = configuration.model_copy(update={"load": (task,)})
    body: dict[str, Any] = {"files": files, "data": fields} if files else {"json": fields}
    async with local.client(only_this) as client:
        return await client.post(f"/v1/{task}", headers={"Accept": accept}, **body)


def _batch(configuration: Settings, options: argparse.Namespace) -> int:
    try:
        from service import batch
    except ModuleNotFoundError as error:
        print(f"batch needs {error.name}: pip install -r requirements/cluster.txt", file=sys.stderr)
        return 2
    _, given = _chosen(options)
    ways = {name: getattr(options, name) for name in ("format", "pictures", "workers", "cpus", "gpus")}
    try:
        tally = batch.run(batch.Job(options.task, given, options.input, options.output, **ways), configuration)
    except batch.BatchError as error:
        print(f"{options.task}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped. The same command goes on.", file=sys.stderr)
        return 130
    print(tally)
    return 0 if tally.done else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m service", description="Serves the models. Settings: environment variables ATELIER_*.")
    parser.add_argument("--version", action="version", version=f"atelier {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("openapi", help="print the OpenAPI document")
    commands.add_parser("doctor", help="tell what models would run on, and what is missing")
    run = commands.add_parser("run", help="do one task on files without a server").add_subparsers(
        dest="task", metavar="TASK", required=True
    )
    folders = commands.add_parser("batch", help="do one task on a folder of pictures, on Ray").add_subparsers(
        dest="task", metavar="TASK", required=True
    )
    for task in TASKS:
        if bodies.pictures_of(task.REQUEST) == ["image"]:
            _add_batch(folders.add_parser(task.TASK, help=(task.__doc__ or "").strip(), description=(task.__doc__ or "").strip()), task)
        command = run.add_parser(task.TASK, help=(task.__doc__ or "").strip(), description=(task.__doc__ or "").strip())
        _add_fields(command, task.REQUEST)
        command.add_argument(
            "-o", "--output", type=Path, metavar="FILE", help="PNG, JPEG, WebP or JSON by its ending; without it JSON is printed"
        )
    return parser


def _add_batch(command: argparse.ArgumentParser, task: ModuleType) -> None:
    command.add_argument("--input", required=True, metavar="FOLDER", help="of pictures, with all folders in it; or a URI such as s3://…")
    command.add_argument(
        "--output", required=True, metavar="FOLDER", help="for the answers; a job that was stopped goes on from those there"
    )
    _add_options(command, task.REQUEST, bodies.pictures_of(task.REQUEST))
    command.add_argument("--format", choices=tuple(media.FORMATS), default="png", help="of answers that are pictures")
    command.add_argument("--pictures", action="store_true", help="keep the pictures in other answers, such as heatmaps, too")
    command.add_argument("--workers", type=int, metavar="N", help="at a time, at most; by default as many as have room")
    command.add_argument("--cpus", type=int, default=1, metavar="N", help="cores of a worker (default: 1)")
    command.add_argument("--gpus", type=float, default=0.0, metavar="SHARE", help="of a GPU, for each worker (default: 0)")


def _add_fields(command: argparse.ArgumentParser, request: type[bodies.Body]) -> None:
    """Pictures (or the digits) are positional, every other field of the request is an option."""
    positional = bodies.pictures_of(request) or [name for name in request.model_fields if name == "digits"]
    for name in positional:
        field = request.model_fields[name]
        command.add_argument(name, nargs=None if field.is_required() else "?", help=field.description or f"file of the {name}")
    _add_options(command, request, positional)


def _add_options(command: argparse.ArgumentParser, request: type[bodies.Body], positional: list[str]) -> None:
    for name, field in request.model_fields.items():
        if name not in positional:
            kind = str if field.annotation in (str, str | None) else _value
            command.add_argument(f"--{name.replace('_', '-')}", dest=name, type=kind, metavar="VALUE", help=field.description)


def _value(text: str) -> Any:
    """Numbers and lists as JSON, anything else as text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


if __name__ == "__main__":
    sys.exit(main())
