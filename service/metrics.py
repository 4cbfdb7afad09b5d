"""What Prometheus reads at `/metrics`. One registry an application, so that two in one process do not mix."""

from __future__ import annotations

from collections.abc import Iterator

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from service.engine.store import Store

MEDIA_TYPE = CONTENT_TYPE_LATEST
REJECTED = "atelier_rejected"
"""The counter of requests that were refused, without the ending that a counter's series has."""
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # a series of creation times beside each counter, which nobody asked for


class Metrics:
    """The server's series; docs/operations.md lists them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Histogram(
            "atelier_request_duration_seconds",
            "From a request's first byte to the last of its answer",
            ["task", "model", "status"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.rejected = Counter(REJECTED, "Requests refused before any work", ["reason"], registry=self.registry)
        self._queued = self._histogram("atelier_queue_seconds", "A request's wait for its first run", _SECONDS)
        self._rows = self._histogram("atelier_batch_size", "Items in one run", _ROWS)
        self._seconds = self._histogram("atelier_inference_duration_seconds", "One run of a session", _SECONDS)
        self._cancelled = Counter(
            "atelier_cancelled", "Requests whose caller went away before they ran", ["model", "graph"], registry=self.registry
        )

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, about, ["model", "graph"], buckets=buckets, registry=self.registry)

    def observer(self, model: str, graph: str) -> Observer:
        return Observer(
            self._queued.labels(model, graph),
            self._rows.labels(model, graph),
            self._seconds.labels(model, graph),
            self._cancelled.labels(model, graph),
        )

    def watch(self, store: Store) -> None:
        """Adds the series that are read off a store when asked for: queue depths, and what is served."""
        self.registry.register(_Served(store))

    def text(self) -> bytes:
        return generate_latest(self.registry)


class Observer:
    """What one batcher tells (service.engine.batching.Observer)."""

    def __init__(self, queued: Histogram, rows: Histogram, seconds: Histogram, cancelled: Counter) -> None:
        self.waited = queued.observe
        self._rows, self._seconds, self._cancelled = rows, seconds, cancelled

    def ran(self, rows: int, seconds: float) -> None:
        self._rows.observe(rows)
        self._seconds.observe(seconds)

    def cancelled(self) -> None:
        self._cancelled.inc()


class _Served:
    def __init__(self, store: Store) -> None:
        self.store = store

    def collect(self) -> Iterator[Metric]:
        depth = GaugeMetricFamily("atelier_queue_depth", "Requests that wait or run", labels=["model", "graph"])
        names = ["task", "model", "digest", "provider"]
        info = GaugeMetricFamily("atelier_model_info", "1 for each task of each served model", labels=names)
        for model in self.store.models.values():
            for graph, batcher in model.batchers.items():
                depth.add_metric([model.name, graph], batcher.depth)
            for task in model.manifest.tasks:
                info.add_metric([task, model.name, model.digest[:12], model.provider], 1)
        yield depth
        yield info
