"""What docker/ says to Ray, held against Ray and the service."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import ray
import yaml
from ray.serve.schema import ServeDeploySchema
from support import ROOT

from service import cluster, settings
from service.cluster import HTTP
from service.settings import SettingsError
from service.tasks import TASKS

SERVE = yaml.safe_load((ROOT / "docker" / "serve.yaml").read_text())
SERVICE: dict[str, Any] = yaml.safe_load((ROOT / "docker" / "rayservice.yaml").read_text())

pytestmark = pytest.mark.few


@pytest.mark.parametrize("configuration", [SERVE, yaml.safe_load(SERVICE["spec"]["serveConfigV2"])], ids=["serve", "rayservice"])
def test_serve_takes_it_and_every_deployment_is_one_of_ours(configuration: dict[str, Any]) -> None:
    (application,) = ServeDeploySchema.model_validate(configuration).applications
    module, name = application.import_path.split(":")
    assert callable(getattr(importlib.import_module(module), name))
    assert settings.read(**application.args).models.name == "models"
    assert {deployment.name for deployment in application.deployments} <= {HTTP, *(task.TASK for task in TASKS)}


def test_the_nodes_have_the_ray_that_is_pinned() -> None:
    assert SERVICE["spec"]["rayClusterConfig"]["rayVersion"] == ray.__version__
    assert f"ray=={ray.__version__} " in (ROOT / "requirements" / "cluster.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"models": str(ROOT / "docs")}, "has no models"),
        ({"load": "vae,juggling"}, "ATELIER_LOAD names juggling, but no folder of "),
        ({"threads": "none"}, "ATELIER_THREADS=none"),
        ({"modles": "elsewhere"}, "modles=elsewhere: there is no such setting"),
        ({"replicas": "0"}, "replicas=0: has to be a number from 1 on"),
    ],
)
def test_what_cannot_be_served_is_told_before_anything_starts(arguments: dict[str, str], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        cluster.app({"models": str(ROOT / "models"), **arguments})
