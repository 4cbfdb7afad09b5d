"""Traces, as a collector receives them."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support import MODELS, ROOT, Server


@pytest.fixture
def collector() -> Iterator[tuple[str, list[Any]]]:
    """The address of an OTLP collector, and the spans that it was sent."""
    spans: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
            spans.extend(span for part in sent.resource_spans for scope in part.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{listening.server_address[1]}", spans
    listening.shutdown()
    listening.server_close()


def test_a_request_is_one_span_in_its_callers_trace(start: Callable[..., Server], collector: tuple[str, list[Any]]) -> None:
    address, spans = collector
    server = start(ATELIER_LOAD="cdcgan", OTEL_EXPORTER_OTLP_ENDPOINT=address)
    server.until_loaded()
    trace = "0af7651916cd43dd8448eb211c80319c"
    answer = server.client.post("/v1/digits", json={"digits": "4"}, headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    assert answer.status_code == 200
    assert server.stop() == 0  # what is left is sent at the end
    assert [span.name for span in spans] == ["POST /v1/digits"]  # health is not traced
    assert spans[0].trace_id.hex() == trace
    attributes = {one.key: one.value for one in spans[0].attributes}
    told = attributes["http.response.header.x_request_id"].array_value.values[0].string_value
    assert told == answer.headers["x-request-id"]
    assert attributes["http.response.header.x_model"].array_value.values[0].string_value == answer.headers["x-model"]


def test_a_collector_that_is_away_delays_nobody(start: Callable[..., Server]) -> None:
    server = start(ATELIER_LOAD="cdcgan", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_EXPORTER_OTLP_TIMEOUT="1")
    server.until_loaded()
    assert server.client.post("/v1/digits", json={"digits": "4"}).status_code == 200


def test_without_the_extra_the_start_says_what_to_install() -> None:
    hidden = (
        "import sys; sys.modules['opentelemetry.instrumentation.fastapi'] = None; from service.__main__ import main; sys.exit(main([]))"
    )
    environment = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "ATELIER_PORT": "0", "ATELIER_MODELS": str(MODELS)}
    ended = subprocess.run(
        [sys.executable, "-c", hidden], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert "pip install -r requirements/telemetry.txt" in ended.stderr.splitlines()[-1]
