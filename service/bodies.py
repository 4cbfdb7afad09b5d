"""Request bodies: read within the upload limit, checked against one pydantic model, documented once.

An operation that takes pictures takes `multipart/form-data`, any other `application/json`; that is what
the OpenAPI document says. A JSON body with base64 pictures under the same field names is accepted too.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from functools import cache, partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic_core import from_json
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from service import problems
from service.engine.workers import Workers
from service.problems import Code, Limit, ProblemError, from_validation, invalid

JSON, MULTIPART = "application/json", "multipart/form-data"

_LENGTH = re.compile("[0-9]{1,18}")
_MOST_FIELDS = 32
SLOWEST = 10_000
"""Bytes a second: a body that comes no slower is waited for, however large it is."""
_SMALL = 16_384
"""Bytes of JSON that are read in less time than handing them to another thread takes."""


class _PictureField:
    """Marks the fields of a body that are uploaded files."""


Picture = Annotated[bytes, _PictureField(), WithJsonSchema({"type": "string", "format": "binary"})]
"""An uploaded picture: PNG, JPEG, WebP, GIF, BMP or TIFF bytes."""


class _EncodedField:
    """Marks the fields of an answer that are pictures as base64."""


ENCODED = _EncodedField()

Model = Annotated[str | None, Field(description="name of the model; without it the task's default serves")]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Latent = Annotated[
    list[Annotated[float, Field(ge=-1000, le=1000, allow_inf_nan=False)]],
    Field(min_length=1, max_length=4096, fail_fast=True, description="one point of the model's latent space"),
]


class Body(BaseModel):
    """A request's fields. Unknown ones are refused, so that a misspelt one is not silently ignored."""

    model_config = ConfigDict(extra="forbid")


@cache
def pictures_of(model: type[Body]) -> list[str]:
    """The names of the fields that are uploaded files."""
    return [name for name, info in model.model_fields.items() if any(isinstance(mark, _PictureField) for mark in info.metadata)]


@cache
def encoded_pictures_of(answer: type[BaseModel]) -> list[str]:
    """The names of an answer's fields that are pictures as base64."""
    return [name for name, info in answer.model_fields.items() if ENCODED in info.metadata]


def media_type(model: type[Body]) -> str:
    """The one content type that the OpenAPI document gives for a body."""
    return MULTIPART if pictures_of(model) else JSON


class OperationRoute(APIRoute):
    """The route of an operation. Its endpoint's dependencies, a `Call` and the body, are functions of the request alone and are called
    one after the other: FastAPI's general way through them takes longer than all else that happens to a small request."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        handle = self.get_route_handler()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            response = await handle(Request(scope, receive, send))
            await response(scope, receive, send)

        self.app = app

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint: Any = self.endpoint
        makers: list[tuple[str, Any]] = [(str(one.name), one.call) for one in self.dependant.dependencies]

        async def handle(request: Request) -> Response:
            response: Response = await endpoint(**{name: await make(request) for name, make in makers})
            return response

        return handle


def router() -> APIRouter:
    """Where a task's operations are registered."""
    return APIRouter(tags=["pictures"], route_class=OperationRoute, generate_unique_id_function=lambda route: route.name)


def operation(request: type[Body], answer: type[BaseModel], summary: str) -> dict[str, Any]:
    """How an operation that answers JSON is registered and documented: one request type, one success type."""
    return {**_documented(request, summary), "response_model": answer}


def picture_operation(request: type[Body], summary: str) -> dict[str, Any]:
    """The same for an operation whose answer is one picture."""
    picture = {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}, "description": "The picture"}
    documented = _documented(request, summary)
    return {**documented, "responses": {200: picture, **documented["responses"]}, "response_class": Response, "response_model": None}


def _documented(request: type[Body], summary: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{request.__name__}"}
    return {
        "summary": summary,
        "responses": problems.documented(401, 404, 406, 408, 413, 415, 422, 429, 500, 503, 504),
        "openapi_extra": {"requestBody": {"required": True, "content": {media_type(request): {"schema": schema}}}},
    }


def body(model: type[Body]) -> Any:
    """A FastAPI dependency that reads and checks the request's body."""

    documented = media_type(model)

    async def read(request: Request) -> Body:
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind != JSON and kind != documented:
            allowed = " or ".join(dict.fromkeys((documented, JSON)))
            raise ProblemError(Code.UNSUPPORTED_MEDIA_TYPE, f"Content-Type is {kind or 'missing'}; this operation takes {allowed}.")
        if kind != JSON:
            return _checked(await _form(request, pictures_of(model)), model, False)
        content = await whole(request)
        if len(content) <= _SMALL:
            return _from_json(content, model)
        workers: Workers = request.app.state.workers
        checked, _ = await workers.run(partial(_from_json, content, model))
        return checked

    return Depends(read)


async def whole(request: Request) -> bytes:
    """A body's bytes, within the upload limit.

    Raises:
        ProblemError: 413.
    """
    return b"".join([chunk async for chunk in _limited(request)])


def _from_json(content: bytes, model: type[Body]) -> Body:
    try:
        fields = from_json(content, allow_inf_nan=False)
    except ValueError as error:
        raise invalid(["body"], f"not valid JSON: {error}" if content else "the body is empty") from error
    if not isinstance(fields, dict):
        raise invalid(["body"], "has to be a JSON object")
    for name in pictures_of(model):
        if isinstance(fields.get(name), str):
            try:
                fields[name] = base64.b64decode("".join(fields[name].split()), validate=True)
            except (binascii.Error, ValueError) as error:
                raise invalid(["body", name], "is not base64") from error
    return _checked(fields, model, True)


def _checked(fields: dict[str, Any], model: type[Body], strict: bool) -> Body:
    try:
        return model.model_validate(fields, strict=strict)
    except ValidationError as error:
        raise from_validation(error) from error


class _FormParser(MultiPartParser):
    """Takes pictures for files also where they come without a file name, which a form may leave out (RFC 7578, section 4.2). No file is
    written to disk on its way, which may be full or not there."""

    def __init__(self, request: Request, pictures: list[str]) -> None:
        super().__init__(request.headers, _limited(request), max_files=_MOST_FIELDS, max_fields=_MOST_FIELDS)
        self.spool_max_size = 0  # of what is kept in memory: no limit but that of the upload
        self._pictures = {name.encode() for name in pictures}

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._current_part.content_disposition)
        if options.get(b"name") in self._pictures and b"filename" not in options:
            self._current_part.content_disposition = b'%s; filename=""' % self._current_part.content_disposition
        super().on_headers_finished()


async def _form(request: Request, pictures: list[str]) -> dict[str, Any]:
    parser = _FormParser(request, pictures)
    try:
        form = await parser.parse()
    except (MultiPartException, LookupError, ValueError) as error:  # no boundary, or a charset that does not decode
        message = getattr(error, "message", "its boundary or charset cannot be used")
        raise invalid(["body"], f"not valid multipart/form-data: {message}") from error
    try:
        fields: dict[str, Any] = {}
        for name, value in form.multi_items():
            if name in fields:
                raise invalid(["body", name], "is given more than once")
            fields[name] = await value.read() if isinstance(value, UploadFile) else value
        return fields
    finally:
        await form.close()


async def _limited(request: Request) -> AsyncGenerator[bytes, None]:
    """The body's chunks, refused as soon as they declare or reach more than the upload limit, or come too slowly."""
    most = int(request.app.state.settings.max_upload_mb * 1e6)
    declared, encoding = request.headers.get("content-length", ""), request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise ProblemError(Code.UNSUPPORTED_MEDIA_TYPE, f"Content-Encoding is {encoding[:40]}; bodies are read as they are.")
    if _LENGTH.fullmatch(declared) and int(declared) > most:
        raise _too_large(most)
    total, more = 0, True
    while more:
        message = await _received(request, total)
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk, more = message.get("body", b""), message.get("more_body", False)
        total += len(chunk)
        if total > most:
            raise _too_large(most)
        request.state.call.keep(len(chunk))
        yield chunk


def _too_large(most: int) -> ProblemError:
    detail = f"The request body is larger than {most:,} bytes."
    return ProblemError(Code.IMAGE_TOO_LARGE, detail, limit=Limit(name="upload_bytes", value=most), headers={"Connection": "close"})


async def _received(request: Request, total: int) -> Message:
    """The next part of a body of which so many bytes have come, if it comes by the request's deadline, and not too slowly.

    Raises:
        ProblemError: 504 or 408, it did not.
    """
    deadline = request.state.call.deadline
    slowest = request.state.started + request.app.state.settings.body_seconds + total / SLOWEST
    try:
        async with asyncio.timeout((slowest if deadline is None else min(deadline, slowest)) - time.perf_counter()):
            return await request.receive()
    except TimeoutError as error:
        closing = {"Connection": "close"}
        if deadline is not None and deadline < slowest:
            raise ProblemError(Code.DEADLINE_EXCEEDED, "The request's time was over before its body had come.", headers=closing) from error
        seconds = time.perf_counter() - request.state.started
        detail = f"Of the body, {total:,} bytes came in {seconds:.1f} s; the rest is not waited for."
        raise ProblemError(Code.REQUEST_TIMEOUT, detail, headers=closing) from error
