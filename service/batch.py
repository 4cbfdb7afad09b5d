"""Folders of pictures through one operation, on Ray Data: `python -m service batch TASK --input FOLDER --output FOLDER`.

The answers are the record of what is done: a job that is started again reads the paths in them and goes on with the others. They are
parquet files in `answers/outcome=done` and, of pictures that cannot be used, in `answers/outcome=failed`; answers that are pictures are
files in `pictures`, under the names of what they were made of. On one machine Ray starts by itself; where `RAY_ADDRESS` names a cluster,
it works there.
"""

from __future__ import annotations

import asyncio
import base64
import fcntl
import json
import logging
import math
import os
import posixpath
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from types import ModuleType, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data
from pyarrow import fs
from pydantic import BaseModel, ValidationError
from ray.data import SaveMode
from ray.exceptions import RayError

from service import bodies, local, media
from service.contract import manifest as manifests
from service.engine.cpu import usable_cores
from service.problems import Code
from service.settings import Settings
from service.tasks import TASKS

OUTCOME, DONE, FAILED = "outcome", "done", "failed"
JOB, ANSWERS, PICTURES = "job.json", "answers", "pictures"
"""In the output: of what job it is, the tables, and the pictures."""
OF_A_PICTURE = (Code.UNREADABLE_IMAGE, Code.IMAGE_TOO_LARGE, Code.MODEL_FAILED)
"""Problems that concern one picture; any other ends the job."""
UNREADABLE_FILE = "unreadable_file"
"""Beside these, the code of a file that cannot be opened."""
AT_ONCE = 32
"""Pictures that one worker has in work: enough for full batches, and not more memory than for as many requests."""
LOT = 64
"""Pictures whose answers are written together, at most: what a crash may lose, of each worker twice."""
READERS = 16
"""Threads that look at what is done."""
STORE = 256 * 2**20
"""Bytes of Ray's object store where it starts by itself: paths and answers take little."""


class BatchError(Exception):
    """The job cannot be begun, or not go on: one line that says why."""


@dataclass(frozen=True)
class Job:
    """What is done to which pictures.

    Attributes:
        task: the operation.
        fields: of the request, besides the picture.
        source, target: folders, or URIs that pyarrow knows, such as s3://BUCKET/FOLDER.
        format: of answers that are pictures, one of media.FORMATS.
        pictures: keep the pictures that JSON answers hold, too.
        workers: how many at a time, at most; by default as many as have room.
        cpus, gpus: of each worker.
    """

    task: str
    fields: dict[str, Any]
    source: str
    target: str
    format: str = "png"
    pictures: bool = False
    workers: int | None = None
    cpus: int = 1
    gpus: float = 0.0

    @property
    def module(self) -> ModuleType:
        return next(task for task in TASKS if self.task == task.TASK)

    @property
    def answer(self) -> type[BaseModel] | None:
        """The model of its JSON answers; none where they are pictures."""
        found: type[BaseModel] | None = self.module.router.routes[0].response_model
        return found

    @property
    def identity(self) -> dict[str, Any]:
        """What has to be the same for a job to go on: all that decides what an answer is."""
        return {"task": self.task, "fields": self.fields, "input": self.source, "format": self.format, "pictures": self.pictures}


@dataclass(frozen=True)
class Tally:
    """How many pictures there are, how many of them this run found done, and how all ended; by code those that failed."""

    there: int
    before: int
    done: int
    failed: Counter[str]
    seconds: float

    def __str__(self) -> str:
        new = self.there - self.before
        reasons = ", ".join(f"{number:,} {code}" for code, number in self.failed.most_common())
        failures = f", {self.failed.total():,} failed ({reasons}; {ANSWERS}/{OUTCOME}={FAILED} says why of each)" if self.failed else ""
        rate = f"; {new:,} of them now, {new / self.seconds:.1f} a second" if new else "; nothing was left to do"
        return f"{self.there:,} pictures: {self.done:,} done{failures}{rate}."


def run(job: Job, settings: Settings) -> Tally:
    """Does what of the job is not done yet.

    Raises:
        BatchError: a field or a folder cannot be used, the output is another job's or another process works on it, or what
            stops has nothing to do with one picture.
    """
    try:
        job.module.REQUEST(image=b"", **job.fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise BatchError(f"{'.'.join(map(str, first['loc'])) or job.task}: {first['msg'][0].lower()}{first['msg'][1:]}.") from error
    models = [model.name for model in manifests.found(settings.models) if job.task in model.tasks]
    name = job.fields.get("model")
    if not models or (name is not None and name not in models):
        raise BatchError(
            f"there is no model{'' if name is None else f' {name}'} in {settings.models}; there is: {', '.join(models) or 'none'}."
        )
    for option, value, least in (("workers", job.workers, 1), ("cpus", job.cpus, 1), ("gpus", job.gpus, 0)):
        if value is not None and not least <= value < math.inf:
            raise BatchError(f"--{option} {value}: has to be a number from {least} on.")
    job = replace(job, source=_absolute(job.source), target=_absolute(job.target))
    source, target = Place.of(job.source), Place.of(job.target)
    try:
        return _run(job, settings, source, target)
    except OSError as error:
        raise BatchError(str(error)) from error


def _run(job: Job, settings: Settings, source: Place, target: Place) -> Tally:
    if source.system == target.system and posixpath.commonpath([source.root, target.root]) == source.root:
        raise BatchError(f"{job.target} lies in {job.source}: its files would be taken for pictures.")
    paths = sorted(source.files())
    if not paths:
        raise BatchError(f"{job.source}: there are no files in it.")
    _claim(job, target)
    with _alone(target):
        known = ended(target)
        left = [path for path in paths if path not in known]
        started = time.monotonic()
        if left:
            _process(job, settings, left)
            known = ended(target)
    codes = [known[path] for path in paths if path in known]  # of pictures that are not there any more it may have answers, too
    failed = Counter(code for code in codes if code is not None)
    return Tally(len(paths), len(paths) - len(left), len(codes) - failed.total(), failed, time.monotonic() - started)


def _absolute(place: str) -> str:
    """The same from wherever a worker runs."""
    return place if "://" in place else os.path.abspath(place)


def _claim(job: Job, target: Place) -> None:
    """Writes down whose output it is, or finds that it is this job's; one that has nothing of another job's yet becomes this job's."""
    path, begun = target.at(JOB), any(name != JOB for name in target.files())
    if begun and target.system.get_file_info(path).type == fs.FileType.File:
        with target.system.open_input_file(path) as file:
            theirs = json.loads(file.read())
        if other := sorted(name for name, value in job.identity.items() if theirs.get(name) != value):
            raise BatchError(f"{job.target} has the answers of another job ({' and '.join(other)} differ): give another output.")
        return
    if begun:
        raise BatchError(f"{job.target} has files in it that are no batch's: give another output.")
    target.system.create_dir(target.root, recursive=True)
    with target.system.open_output_stream(path) as stream:
        stream.write(json.dumps(job.identity, indent=2).encode())


@contextmanager
def _alone(target: Place) -> Iterator[None]:
    """Only one process at a time goes on here: a second one would do the same pictures. Folders of other systems know no locks.

    Raises:
        BatchError: another one does.
    """
    if not isinstance(target.system, fs.LocalFileSystem):
        yield
        return
    with open(target.at(JOB), "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BatchError(f"{target.root}: another process is at work on it.") from error
        yield


@dataclass(frozen=True)
class Place:
    """A folder in some file system."""

    system: fs.FileSystem
    root: str

    @classmethod
    def of(cls, uri: str) -> Place:
        """From an absolute path or a URI.

        Raises:
            BatchError: there is no such file system, or it cannot be reached.
        """
        try:
            return cls(*fs.FileSystem.from_uri(uri))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise BatchError(f"{uri}: {error}") from error

    def at(self, name: str) -> str:
        return posixpath.join(self.root, name)

    def files(self, folder: str = "") -> Iterator[str]:
        """The paths of all files from the folder on, hidden ones left out; none where it is not there."""
        selector = fs.FileSelector(self.at(folder) if folder else self.root, recursive=True, allow_not_found=True)
        for found in self.system.get_file_info(selector):
            path = posixpath.relpath(_path(found), self.root)
            if found.type == fs.FileType.File and not any(part.startswith(".") for part in path.split("/")):
                yield path


def _path(found: fs.FileInfo) -> str:
    """Its path; of a name that is no UTF-8, which pyarrow can list but not open, one that tells it."""
    try:
        return str(found.path)
    except UnicodeDecodeError as error:
        return bytes(error.object).decode("utf-8", "backslashreplace")


def ended(target: Place) -> dict[str, str | None]:
    """By path, the pictures that have an answer in the output, or a failure, and that one's code. A file that a crash left unfinished is
    deleted."""

    def rows(file: str) -> list[tuple[str, str | None]]:
        try:
            with target.system.open_input_file(target.at(file)) as opened:
                read = pq.read_table(opened, columns=["path", "code"])
        except pa.ArrowInvalid:
            target.system.delete_file(target.at(file))
            return []
        return list(zip(read["path"].to_pylist(), read["code"].to_pylist(), strict=True))

    with ThreadPoolExecutor(READERS) as readers:
        return {path: code for some in readers.map(rows, list(target.files(ANSWERS))) for path, code in some}


def _process(job: Job, settings: Settings, paths: list[str]) -> None:
    if not ray.is_initialized():
        _start(job)
    ray.data.DataContext.get_current().raise_original_map_exception = True
    cores = max(1, int(ray.cluster_resources().get("CPU", 1)) - 1)  # one writes
    workers = job.workers or max(1, cores // job.cpus)
    lots = list(lots_of(paths, workers))
    data = ray.data.from_arrow([pa.table({"path": lot}) for lot in lots]).map_batches(
        Worker,
        fn_constructor_args=(job, settings.model_copy(update={"threads": job.cpus, "models": settings.models.absolute()})),
        batch_size=len(lots[0]),
        batch_format="pyarrow",
        concurrency=min(len(lots), workers),
        num_cpus=job.cpus,
        num_gpus=job.gpus,
    )
    try:
        data.write_parquet(f"{job.target}/{ANSWERS}", partition_cols=[OUTCOME], mode=SaveMode.APPEND)
    except RayError as error:
        stopped = next((cause for cause in _causes(error) if type(cause) is BatchError), None)
        raise BatchError(str(stopped or error).splitlines()[0]) from error  # Ray adds lines of its own


def lots_of(paths: list[str], workers: int) -> Iterator[list[str]]:
    """Lots, alike in size but for the last, of which each worker has one where there are few pictures."""
    size = min(LOT, math.ceil(len(paths) / workers))
    for start in range(0, len(paths), size):
        yield paths[start : start + size]


def _start(job: Job) -> None:
    """A Ray of its own on this machine, or the cluster that RAY_ADDRESS names, which may get larger nodes than it has.

    Raises:
        BatchError: this machine has no room for one worker, which would be waited for for ever.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    cores = usable_cores()
    own = not os.environ.get("RAY_ADDRESS")
    here: dict[str, Any] = {"address": "local", "num_cpus": cores + 1, "object_store_memory": STORE} if own else {}
    ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.WARNING, **here)
    cards = int(ray.cluster_resources().get("GPU", 0))
    if own and (job.cpus > cores or job.gpus > cards):
        raise BatchError(f"a worker is to have {job.cpus} cores and {job.gpus:g} GPUs, and this machine has {cores} and {cards}.")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = getattr(error, "cause", None) or error.__cause__


class Worker:
    """The server's application in a process of its own, to which a lot of pictures is sent as requests would be."""

    def __init__(self, job: Job, settings: Settings) -> None:
        self.job = job
        self.source, self.target = Place.of(job.source), Place.of(job.target)
        self.schema = schema_of(job.answer, job.pictures)
        self._loop, self._open = asyncio.new_event_loop(), AsyncExitStack()
        only_this = settings.model_copy(update={"load": (str(job.fields.get("model") or job.task),)})
        self._client = self._loop.run_until_complete(self._open.enter_async_context(local.client(only_this)))

    def __call__(self, lot: pa.Table) -> pa.Table:
        """A table with `path` -> a table with an answer for each."""
        rows = self._loop.run_until_complete(self._all(lot["path"].to_pylist()))
        return pa.Table.from_pylist(rows, self.schema)

    async def _all(self, paths: list[str]) -> list[dict[str, Any]]:
        room = asyncio.Semaphore(AT_ONCE)

        async def one(path: str) -> dict[str, Any]:
            async with room:
                return await self._one(path)

        return await asyncio.gather(*map(one, paths))

    async def _one(self, path: str) -> dict[str, Any]:
        try:
            content = await asyncio.to_thread(self._read, path)
        except OSError as error:
            return {"path": path, OUTCOME: FAILED, "code": UNREADABLE_FILE, "detail": str(error)}
        answer = await self._asked(path, content)
        if answer.status_code != 200:
            problem = answer.json()
            if problem["code"] not in OF_A_PICTURE:
                raise BatchError(problem["detail"])
            return {"path": path, OUTCOME: FAILED, "code": problem["code"], "detail": problem["detail"]}
        row = {"path": path, OUTCOME: DONE, "served_by": answer.headers["x-model"]}
        if self.job.answer is None:
            return row | {"picture": await self._written(path, self.job.format, answer.content)}
        told: dict[str, Any] = answer.json()
        for name in bodies.encoded_pictures_of(self.job.answer):
            content = told.pop(name, None)
            if self.job.pictures and content is not None:
                row[name] = await self._written(path, f"{name}.png", base64.b64decode(content))
        return row | told

    async def _asked(self, path: str, content: bytes) -> httpx.Response:
        """The answer; where there is no room now, that of a later try."""
        fields = {name: _text(value) for name, value in self.job.fields.items()}
        accept = media.JSON if self.job.answer is not None else media.FORMATS[self.job.format]
        while True:
            files = {"image": (posixpath.basename(path), content)}
            answer = await self._client.post(f"/v1/{self.job.task}", files=files, data=fields, headers={"Accept": accept})
            if answer.status_code != 503 or answer.json()["code"] != "overloaded":
                return answer
            await asyncio.sleep(float(answer.headers.get("retry-after", 1)))

    def _read(self, path: str) -> bytes:
        with self.source.system.open_input_file(self.source.at(path)) as file:
            return bytes(file.read())

    async def _written(self, path: str, ending: str, content: bytes) -> str:
        """Writes a picture under the name of that which it was made of; gives the name, from the output on."""
        name = f"{PICTURES}/{path}.{ending}"

        def write() -> None:
            self.target.system.create_dir(posixpath.dirname(self.target.at(name)), recursive=True)
            with self.target.system.open_output_stream(self.target.at(name)) as stream:
                stream.write(content)

        await asyncio.to_thread(write)
        return name


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def schema_of(answer: type[BaseModel] | None, pictures: bool) -> pa.Schema:
    """The columns of the output: what an answer holds, the path of what it is about, and of failures why."""
    columns: dict[str, pa.DataType] = {"path": pa.string(), OUTCOME: pa.string(), "served_by": pa.string()}
    if answer is None:
        columns["picture"] = pa.string()
    else:
        encoded = bodies.encoded_pictures_of(answer)
        columns |= {name: _type(info.annotation) for name, info in answer.model_fields.items() if name not in encoded}
        columns |= {name: pa.string() for name in encoded if pictures}
    return pa.schema([*columns.items(), ("code", pa.string()), ("detail", pa.string())])


_SIMPLE = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def _type(annotation: Any) -> pa.DataType:
    """Arrow's type of a field of an answer."""
    origin, parts = get_origin(annotation), [part for part in get_args(annotation) if part is not NoneType]
    if origin in (Union, UnionType):
        return _type(parts[0])
    if origin is Literal:
        return pa.string()
    if origin is list:
        return pa.list_(pa.float32() if parts[0] is float else _type(parts[0]))  # long ones come from graphs, which give no more
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return pa.struct([(name, _type(info.annotation)) for name, info in annotation.model_fields.items()])
    return _SIMPLE[annotation]
