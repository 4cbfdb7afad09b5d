"""The OpenAPI document, shaped so that clients that are generated from it read well."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from service import bodies
from service.access import ADMIN, closed
from service.problems import Problem
from service.protocol.tensors import InferenceRequest
from service.tasks import TASKS

KEY = "key"


def describe(app: FastAPI) -> None:
    """Completes the document that FastAPI makes: with the bodies that `bodies.body` reads, with `Problem`, and with who may call what."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            schemas = document["components"]["schemas"] = _present(document["components"]["schemas"])
            schemas |= _present(_schemas(Problem))
            for model in (*(task.REQUEST for task in TASKS), InferenceRequest):
                described = _schemas(model)
                schemas |= _present(described) if bodies.media_type(model) == bodies.MULTIPART else described
            _secure(document)
            app.openapi_schema = _untitled(document) | {"info": document["info"]}
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _schemas(model: Any) -> dict[str, Any]:
    """A model's schema and those that it refers to, by their names."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**schema.pop("$defs", {}), model.__name__: schema}


def _present(schema: Any) -> Any:
    """Without null: what is None is left out of every answer, and a form has no null."""
    if isinstance(schema, list):
        return [_present(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {name: _present(value) for name, value in schema.items()}
    kinds = schema.get("anyOf", [])
    if {"type": "null"} not in kinds:
        return schema
    kinds = [kind for kind in kinds if kind != {"type": "null"}]
    rest = {name: value for name, value in schema.items() if name != "anyOf" and (name, value) != ("default", None)}
    return {**kinds[0], **rest} if len(kinds) == 1 else {"anyOf": kinds, **rest}


def _untitled(part: Any) -> Any:
    """Without the titles that pydantic makes of names."""
    if isinstance(part, list):
        return [_untitled(one) for one in part]
    if not isinstance(part, dict):
        return part
    return {name: _untitled(value) for name, value in part.items() if name != "title" or not isinstance(value, str)}


def _secure(document: dict[str, Any]) -> None:
    """Says which operations take a key: all below /v1 and /v2 may be asked for one, reloading wants an admin's."""
    document["components"]["securitySchemes"] = {
        KEY: {"type": "http", "scheme": "bearer", "description": "one of ATELIER_API_KEYS, if the server has any"}
    }
    document["security"] = [{}, {KEY: []}]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if path in ADMIN:
                operation["security"] = [{KEY: []}]
            elif not closed(path):
                operation["security"] = []
