"""Every error that a caller can meet, as RFC 9457 problem details."""

from __future__ import annotations

from enum import StrEnum
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"
MOST_ERRORS = 20
MOST_ECHOED = 200
"""Characters of what a caller sent, or of what is said of it, in one error of many."""


class Code(StrEnum):
    """What went wrong, for programs. The status says the same more coarsely."""

    INVALID_REQUEST = "invalid_request"
    UNREADABLE_IMAGE = "unreadable_image"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    IMAGE_TOO_LARGE = "image_too_large"
    UNKNOWN_MODEL = "unknown_model"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    NOT_ACCEPTABLE = "not_acceptable"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    MODEL_UNAVAILABLE = "model_unavailable"
    REQUEST_TIMEOUT = "request_timeout"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    MODEL_FAILED = "model_failed"


_ABOUT: dict[Code, tuple[int, str]] = {
    Code.INVALID_REQUEST: (422, "The request is not valid"),
    Code.UNREADABLE_IMAGE: (415, "The picture cannot be read"),
    Code.UNSUPPORTED_MEDIA_TYPE: (415, "The content type is not supported"),
    Code.IMAGE_TOO_LARGE: (413, "The upload or picture is too large"),
    Code.UNKNOWN_MODEL: (404, "No such model"),
    Code.NOT_FOUND: (404, "No such resource"),
    Code.METHOD_NOT_ALLOWED: (405, "The method is not allowed here"),
    Code.NOT_ACCEPTABLE: (406, "No acceptable format"),
    Code.UNAUTHORIZED: (401, "A key is needed"),
    Code.FORBIDDEN: (403, "The key does not allow this"),
    Code.RATE_LIMITED: (429, "Too many requests"),
    Code.OVERLOADED: (503, "The queue is full"),
    Code.MODEL_UNAVAILABLE: (503, "The model is not available"),
    Code.REQUEST_TIMEOUT: (408, "The request came too slowly"),
    Code.DEADLINE_EXCEEDED: (504, "The deadline has passed"),
    Code.MODEL_FAILED: (500, "The model failed"),
}


class FieldProblem(BaseModel):
    """One invalid field of a request."""

    loc: list[str | int] = Field(description="where it is: body, query, path or header, then the path to the field")
    msg: str


class Limit(BaseModel):
    """The limit that was exceeded."""

    name: str = Field(description="upload_bytes, picture_pixels, output_pixels, output_side or batch")
    value: int


class Problem(BaseModel):
    """The body of every answer that is not a success (RFC 9457)."""

    type: str = Field(default="about:blank", description="a URI of the kind of problem")
    title: str
    status: int
    detail: str
    instance: str = Field(description="the request's id")
    code: Code
    errors: list[FieldProblem] | None = Field(default=None, description="with invalid_request: the invalid fields, at most 20")
    limit: Limit | None = Field(default=None, description="with image_too_large: the limit")
    error: str | None = Field(default=None, description="below /v2: the detail once more, where that protocol's clients look for it")


class ProblemError(Exception):
    """Raised anywhere below an endpoint to answer with a problem."""

    def __init__(
        self,
        code: Code,
        detail: str,
        *,
        errors: list[FieldProblem] | None = None,
        limit: Limit | None = None,
        retry_after: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code, self.detail, self.errors, self.limit = code, detail, errors, limit
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(max(1, round(retry_after)))


def invalid(loc: list[str | int], msg: str) -> ProblemError:
    """One invalid field, found after the schema was satisfied."""
    return ProblemError(Code.INVALID_REQUEST, f"{'.'.join(map(str, loc))}: {msg}", errors=[FieldProblem(loc=loc, msg=msg)])


def from_validation(error: ValidationError) -> ProblemError:
    """What pydantic found wrong with a body, as one problem."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    errors = [
        FieldProblem(
            loc=["body", *(_cut(step) for step in one["loc"] if "[" not in str(step))],  # pydantic names the arms of a union there
            msg=one["msg"].removeprefix("Value error, ")[:MOST_ECHOED],
        )
        for one in found[:MOST_ERRORS]
    ]
    first = errors[0]
    return ProblemError(Code.INVALID_REQUEST, f"{'.'.join(map(str, first.loc))}: {first.msg}", errors=errors)


def _cut(step: str | int) -> str | int:
    return step[:MOST_ECHOED] if isinstance(step, str) else step


def response(error: ProblemError, instance: str, path: str) -> Response:
    """The problem as an answer to a request for a path."""
    status, title = _ABOUT[error.code]
    problem = Problem(
        title=title, status=status, detail=error.detail, instance=instance, code=error.code, errors=error.errors, limit=error.limit
    )
    if path.startswith("/v2"):
        problem.error = error.detail
    return Response(problem.model_dump_json(exclude_none=True), status, error.headers, MEDIA_TYPE)


_REFUSALS = {Code.OVERLOADED, Code.MODEL_UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.REQUEST_TIMEOUT, Code.IMAGE_TOO_LARGE}


async def handle_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    if error.code in _REFUSALS:
        request.app.state.metrics.rejected.labels(error.code).inc()
    return response(error, request.state.id, request.scope["path"])


async def handle_http(request: Request, error: Exception) -> Response:
    """The router's own errors (no such path, wrong method) in the same form."""
    assert isinstance(error, HTTPException)
    codes = {404: Code.NOT_FOUND, 405: Code.METHOD_NOT_ALLOWED}
    code = codes.get(error.status_code, Code.INVALID_REQUEST)
    details = {
        Code.NOT_FOUND: f"There is nothing at {request.url.path}.",
        Code.METHOD_NOT_ALLOWED: f"{request.method} is not allowed at {request.url.path}.",
    }
    return response(
        ProblemError(code, details.get(code, error.detail), headers=dict(error.headers or {})), request.state.id, request.url.path
    )


async def handle_validation(request: Request, error: Exception) -> Response:
    """A path or query parameter that the router itself found invalid."""
    assert isinstance(error, RequestValidationError)
    errors = [FieldProblem(loc=list(found["loc"]), msg=found["msg"]) for found in error.errors()]
    return response(ProblemError(Code.INVALID_REQUEST, errors[0].msg, errors=errors), request.state.id, request.url.path)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an operation in the OpenAPI document, for the statuses that it can end with."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: schema}} for status in statuses}
