"""OpenTelemetry traces, for those who have a collector: the standard variables `OTEL_*` decide everything.

A span a request comes from the instrumentation library; it carries the answer's `X-Request-Id`, `X-Model` and `Server-Timing`.
"""

from __future__ import annotations

import os

from fastapi import FastAPI

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_HEADERS = ["x-request-id", "x-model", "server-timing"]


class TelemetryMissing(RuntimeError):
    """An endpoint is set, but the libraries that would send there are not installed."""


def wanted() -> bool:
    """An OTLP endpoint is set, and the SDK is not switched off."""
    return any(os.environ.get(name) for name in ENDPOINTS) and os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true"


def instrument(app: FastAPI) -> None:
    """Sends a trace of each request, health and metrics apart, to the endpoint.

    Raises:
        TelemetryMissing: what is needed is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise TelemetryMissing(
            f"{' or '.join(ENDPOINTS)} is set, but what sends traces there is not installed: pip install -r requirements/telemetry.txt"
        ) from error
    resource = Resource.create({SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME", "atelier")})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    FastAPIInstrumentor.instrument_app(
        app,
        tracer_provider=provider,
        excluded_urls="health/.*,metrics",
        exclude_spans=["receive", "send"],
        http_capture_headers_server_response=_HEADERS,
    )
    app.state.traces = provider  # what is left is sent when the application ends
