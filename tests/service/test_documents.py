"""The OpenAPI document, the page at /docs, settings, logs, CORS, and the command line."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from support import MODELS, ROOT, Server, pixels

from service.tasks import TASKS


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {"ATELIER_MODELS": str(MODELS), **environment}
    command = [sys.executable, "-m", "service", *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, timeout=60, check=False)


JSON, FORM = "application/json", "multipart/form-data"
KINDS = {
    "generate": (JSON, JSON),
    "digits": (JSON, JSON),
    "embed": (FORM, JSON),
    "reconstruct": (FORM, "image/png"),
    "translate": (FORM, "image/png"),
    "upscale": (FORM, "image/png"),
    "inpaint": (FORM, "image/png"),
    "anomaly": (FORM, JSON),
    "caption": (FORM, JSON),
    "swap": (FORM, "image/png"),
}
"""What each operation takes and gives."""


@cache
def document() -> dict[str, Any]:
    made: dict[str, Any] = json.loads(run("openapi").stdout)
    return made


def test_each_operation_has_one_request_type_and_one_success_type(client: httpx.Client) -> None:
    assert KINDS.keys() == {task.TASK for task in TASKS}
    served = client.get("/openapi.json").json()
    for task, (taken, given) in KINDS.items():
        operation = served["paths"][f"/v1/{task}"]["post"]
        assert (operation["operationId"], operation["tags"]) == (task, ["pictures"])
        assert list(operation["requestBody"]["content"]) == [taken]
        success = {status: answer for status, answer in operation["responses"].items() if status.startswith("2")}
        assert list(success) == ["200"]
        assert list(success["200"]["content"]) == [given]
        assert {"404", "413", "415", "422", "503"} <= operation["responses"].keys()


def test_every_reference_of_the_document_resolves(client: httpx.Client) -> None:
    text = client.get("/openapi.json").text
    schemas = json.loads(text)["components"]["schemas"]
    found = re.findall(r'"#/components/schemas/(\w+)"', text)
    assert found
    assert set(found) <= schemas.keys()
    assert "HTTPValidationError" not in set(found)
    assert schemas["EmbedRequest"]["properties"]["image"]["format"] == "binary"
    assert "unreadable_image" in schemas["Code"]["enum"]


def test_the_document_is_the_one_of_docs() -> None:
    """Clients are generated from it: whoever changes the API sees here that it changed."""
    kept = (ROOT / "docs" / "openapi.json").read_text()
    assert run("openapi").stdout == kept, "The API is another than docs/openapi.json says. If it is meant to be: make openapi"


def test_every_error_is_the_one_problem() -> None:
    for path, operations in document()["paths"].items():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                if not status.startswith("2") and not path.endswith("/health/ready"):
                    problem = answer["content"]["application/problem+json"]["schema"]
                    assert problem == {"$ref": "#/components/schemas/Problem"}, (path, status)


def test_the_document_says_who_may_call() -> None:
    made = document()
    assert made["security"] == [{}, {"key": []}]
    assert made["paths"]["/v1/models/reload"]["post"]["security"] == [{"key": []}]
    for path in ("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"):
        assert made["paths"][path]["get"]["security"] == []
    for path in ("/v1/generate", "/v1/models", "/v2"):
        (operation,) = made["paths"][path].values()
        assert "security" not in operation
        assert {"401", "429"} <= operation["responses"].keys()


def test_null_is_only_where_json_may_have_it() -> None:
    schemas = document()["components"]["schemas"]
    with_null = {name for name, schema in schemas.items() if '"null"' in json.dumps(schema)}
    assert with_null == {"GenerateRequest", "DigitsRequest", "InferenceRequest", "InputTensor", "Parameters"}
    assert schemas["EmbedRequest"]["properties"]["model"] == {
        "type": "string",
        "description": "name of the model; without it the task's default serves",
    }


def test_titles_say_no_name_again() -> None:
    made = document()
    assert made["info"]["title"] == "Atelier"
    assert "title" in made["components"]["schemas"]["Problem"]["properties"]
    assert not re.search(r'"title": "', json.dumps({name: part for name, part in made.items() if name != "info"}))


def test_the_docs_page_needs_no_other_host(client: httpx.Client) -> None:
    page = client.get("/docs").text
    links = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert links
    for link in links:
        assert link.startswith("/")
        assert client.get(link).status_code == 200


def test_nothing_runs_on_the_docs_page_but_what_belongs_to_it(client: httpx.Client) -> None:
    answer = client.get("/docs")
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    (inline,) = re.findall("<script>(.*?)</script>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
    assert policy["script-src"] == f"'self' 'sha256-{digest}'"
    assert (policy["default-src"], policy["object-src"], policy["frame-ancestors"]) == ("'self'", "'none'", "'self'")
    assert "/openapi.json" in inline


@pytest.mark.process
def test_no_answer_may_be_taken_for_another_type(client: httpx.Client, digit: bytes) -> None:
    answers = [client.get(path) for path in ("/", "/docs", "/openapi.json", "/docs-assets/swagger-ui.css", "/health/live", "/nothing")]
    answers += [client.post("/v1/embed", files={"image": one}) for one in (digit, b"text")]
    answers += [client.post("/v1/digits", json={"digits": "1"}, headers={"Accept": "image/png"}), client.get("/v2"), client.get("/metrics")]
    for answer in answers:
        assert answer.headers.get_list("x-content-type-options") == ["nosniff"], answer.request.url
        assert "server" not in answer.headers


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "eighty"), ("PORT", "70000"), ("PROVIDER", "quantum"), ("MAX_UPLOAD_MB", "-1"), ("LOG_FORMAT", "xml"), ("THREADS", "0")],
)
def test_a_bad_setting_stops_the_start_with_one_line(name: str, value: str) -> None:
    result = run(**{f"ATELIER_{name}": value})
    assert result.returncode == 2
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1
    assert f"ATELIER_{name}={value}: " in lines[0]
    assert "cuda" in lines[0] or "allowed: " in lines[0] or "json" in lines[0]


@pytest.mark.parametrize("name", ["API_KEYS", "ADMIN_KEYS", "LOAD"])
def test_a_list_of_nothing_stops_the_start(name: str) -> None:
    result = run(**{f"ATELIER_{name}": " , "})
    assert (result.returncode, len(result.stderr.strip().splitlines())) == (2, 1)
    assert f"ATELIER_{name}" in result.stderr


def test_keys_that_were_not_mounted_leave_no_server_open(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("\n")
    result = run(ATELIER_API_KEYS_FILE=str(tmp_path / "keys"))
    assert (result.returncode, len(result.stderr.strip().splitlines())) == (2, 1)
    assert "has no key in it" in result.stderr


def test_a_rate_of_none_is_refused() -> None:
    result = run(ATELIER_RATE_LIMIT="0/minute")
    assert result.returncode == 2
    assert "refuse everybody" in result.stderr


def test_a_port_in_use_is_said(server: Server) -> None:
    result = run(ATELIER_PORT=server.url.rpartition(":")[2])
    assert result.returncode == 3
    assert "in use" in result.stderr


def test_logs_as_json(start: Callable[..., Server], digit: bytes) -> None:
    server = start(ATELIER_LOG_FORMAT="json", ATELIER_LOAD="vae")
    server.until_loaded()
    server.client.post("/v1/embed", files={"image": digit}, headers={"X-Request-Id": "look-for-me"})
    server.stop()
    events = [json.loads(line) for line in server.log]
    event = next(event for event in events if event.get("request_id") == "look-for-me")
    assert (event["status"], event["path"], event["level"]) == (200, "/v1/embed", "info")
    assert event["model"].startswith("embed/vae@")
    assert "infer" in event["timing"]


def test_cors_is_off_until_origins_are_named(server: Server, start: Callable[..., Server]) -> None:
    origin = {"Origin": "https://app.example"}
    assert "access-control-allow-origin" not in server.client.get("/health/live", headers=origin).headers
    other = start(ATELIER_CORS_ORIGINS="https://app.example,https://b.example", ATELIER_LOAD="vae-map")
    headers = other.client.get("/health/live", headers=origin).headers
    assert headers["access-control-allow-origin"] == "https://app.example"
    assert "X-Model" in headers["access-control-expose-headers"]
    preflight = other.client.options("/v1/generate", headers=origin | {"Access-Control-Request-Method": "POST", "X-Request-Id": "before"})
    assert (preflight.status_code, preflight.headers["x-request-id"]) == (200, "before")


def test_stopped_by_a_signal_it_exits_with_0(start: Callable[..., Server]) -> None:
    server = start(ATELIER_LOAD="vae-map")
    server.until_loaded()
    assert server.stop() == 0


def test_run_writes_digits_to_a_picture(tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    result = run("run", "digits", "2026", "--seed", "3", "-o", str(out), ATELIER_API_KEYS="secret", ATELIER_RATE_LIMIT="1/hour")
    assert (result.returncode, result.stderr) == (0, "")
    assert pixels(out.read_bytes()).shape == (28, 112)


def test_run_answers_as_the_server_does(client: httpx.Client, tmp_path: Path, digit: bytes) -> None:
    picture = tmp_path / "digit.png"
    picture.write_bytes(digit)
    result = run("run", "embed", str(picture))
    assert json.loads(result.stdout) == client.post("/v1/embed", files={"image": digit}).json()
    out = tmp_path / "back.jpg"
    assert run("run", "reconstruct", str(picture), "--model", "autoencoder", "-o", str(out)).returncode == 0
    assert out.read_bytes()[:3] == b"\xff\xd8\xff"
    labels = json.loads(run("run", "digits", "--labels", "[4, 0]", "--seed", "1").stdout)
    assert labels == client.post("/v1/digits", json={"labels": [4, 0], "seed": 1}).json()
    generated = json.loads(run("run", "generate", "--n", "2", "--seed", "5").stdout)
    assert generated["images"] == client.post("/v1/generate", json={"n": 2, "seed": 5}).json()["images"]
    assert np.array(generated["latents"]).shape[0] == 2


def test_run_fails_in_one_line(tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("no picture")
    for arguments, code, said in (
        (["digits", "12x"], 1, "digits"),
        (["embed", str(tmp_path / "missing.png")], 1, "missing.png: No such file"),
        (["embed", str(text)], 1, "not a picture"),
        (["digits", "1", "-o", "out.xyz"], 2, "ending"),
        (["digits", "1", "--model", "nobody"], 1, "nobody"),
        (["digits", "1", "-o", "/nowhere/at/all.png"], 1, "/nowhere/at/all.png: No such file"),
    ):
        result = run("run", *arguments)
        assert result.returncode == code, result.stderr
        assert len(result.stderr.strip().splitlines()) == 1, result.stderr
        assert said in result.stderr
