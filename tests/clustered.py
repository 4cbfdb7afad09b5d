"""The service on a Ray cluster of three nodes, which are processes of this machine: needs requirements/cluster.txt."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

import httpx
from support import MODELS, ROOT

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])

import ray
from ray import serve
from ray.cluster_utils import Cluster
from ray.serve.config import HTTPOptions

from service import cluster

STORE = 80 * 2**20
NODES = 2
"""Besides the head."""


class Served:
    """What `serve run` would start on the cluster, on a free port of the head."""

    def __init__(self, **arguments: str) -> None:
        self.nodes: list[Any] = []
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": STORE})
        for _ in range(NODES):
            self.add_node()
        ray.init(self.cluster.address, log_to_driver=False, logging_level="ERROR", namespace="serve")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        serve.start(proxy_location="HeadOnly", http_options=HTTPOptions(host="127.0.0.1", port=port))
        self.url = f"http://127.0.0.1:{port}"
        self.client = httpx.Client(base_url=self.url, timeout=60)
        self.arguments = {"models": str(MODELS), **arguments}

    def run(self, **more: str) -> None:
        """Brings what runs into line with these arguments, besides those of the beginning."""
        serve.run(cluster.app(self.arguments | more), name="atelier")

    def add_node(self) -> None:
        self.nodes.append(self.cluster.add_node(num_cpus=2, object_store_memory=STORE))

    def kill_node(self) -> None:
        """A node other than the head, at once."""
        self.cluster.remove_node(self.nodes.pop(), allow_graceful=False)

    def until_loaded(self) -> httpx.Response:
        deadline = time.monotonic() + 120
        while (answer := self.client.get("/health/ready")).status_code != 200 and time.monotonic() < deadline:
            time.sleep(0.2)
        return answer

    def stop(self) -> int:
        self.client.close()
        serve.shutdown()
        ray.shutdown()
        self.cluster.shutdown()
        return 0
