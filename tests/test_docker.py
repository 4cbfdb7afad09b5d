"""What docker/ and docker-compose.yml say of the server, held against the server."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from support import ROOT, Server

from service.settings import Settings

DASHBOARD = json.loads((ROOT / "docker" / "grafana" / "dashboards" / "atelier.json").read_text())
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
MADE_BY_PROMETHEUS = {"le", "job", "instance"}

EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
VARIABLES = {variable["name"]: variable["query"]["query"] for variable in DASHBOARD["templating"]["list"]}


@pytest.fixture(scope="module")
def series(server: Server) -> dict[str, set[str]]:
    """The labels of each series that a server has once it was used, refused one and lost one."""
    assert server.client.post("/v1/digits", json={"digits": "12"}).status_code == 200
    assert server.client.post("/v1/digits", json={"digits": "1"}, headers={"X-Request-Timeout": "0.0000001"}).status_code == 504
    found: dict[str, set[str]] = {}
    for name, labels in re.findall(r"^(atelier_\w+)\{(.*)\} ", server.client.get("/metrics").text, re.MULTILINE):
        found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    return found


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_the_dashboard_asks_for_what_the_server_has(expression: str, series: dict[str, set[str]]) -> None:
    named = re.findall(r"atelier_\w+", expression)
    assert named or "up{" in expression
    assert set(named) <= series.keys()
    labels = {label for name in named for label in series[name]} | MADE_BY_PROMETHEUS
    asked = set(re.findall(r'(\w+)=~?"', expression))
    for by in re.findall(r"by \(([^)]*)\)", expression):
        asked |= {label.strip() for label in by.split(",")}
    assert asked <= labels


@pytest.mark.parametrize("name", VARIABLES)
def test_the_dashboards_variables_are_labels_that_the_server_has(name: str, series: dict[str, set[str]]) -> None:
    found = re.fullmatch(r"label_values\((\w+), (\w+)\)", VARIABLES[name])
    assert found is not None
    assert found[2] in series[found[1]]
    assert any(f'{found[2]}=~"${name}"' in expression for expression in EXPRESSIONS)


def test_the_dashboard_shows_every_series(series: dict[str, set[str]]) -> None:
    shown = {re.sub(r"_(bucket|count|sum)$", "", name) for expression in EXPRESSIONS for name in re.findall(r"atelier_\w+", expression)}
    assert shown == {re.sub(r"_(bucket|count|sum)$", "", name) for name in series}


def test_the_dashboard_is_provisioned_from_the_source_that_it_names() -> None:
    grafana = ROOT / "docker" / "grafana" / "provisioning"
    (source,) = yaml.safe_load((grafana / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {source["uid"]}
    (provider,) = yaml.safe_load((grafana / "dashboards" / "atelier.yml").read_text())["providers"]
    mounted = dict(volume.split(":")[:2] for volume in COMPOSE["services"]["grafana"]["volumes"])
    assert mounted["./docker/grafana/dashboards"] == provider["options"]["path"]
    home = COMPOSE["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/atelier.json"


def test_prometheus_finds_either_server() -> None:
    (job,) = yaml.safe_load((ROOT / "docker" / "prometheus.yml").read_text())["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    for service in ("cpu", "gpu"):
        assert COMPOSE["services"][service]["networks"]["default"]["aliases"] == found["names"]
        assert all(port.endswith(f":{found['port']}") for port in COMPOSE["services"][service]["ports"])


def test_each_profile_starts_what_it_is_for() -> None:
    """Without a profile, .env gives one; a profile on the command line takes its place."""
    assert "COMPOSE_PROFILES=cpu" in (ROOT / ".env").read_text().splitlines()

    def started(profile: str) -> set[str]:
        return {name for name, service in COMPOSE["services"].items() if profile in service["profiles"]}

    assert started("cpu") == {"cpu"}
    assert started("gpu") == {"gpu"}
    assert started("monitoring") == {"cpu", "prometheus", "grafana"}
    assert started("training") == {"training"}


def test_keys_are_files_of_secrets() -> None:
    keys = yaml.safe_load((ROOT / "docker" / "keys.yml").read_text())
    for name in ("cpu", "gpu"):
        service = keys["services"][name]
        assert COMPOSE["services"][name]
        variables = {f"ATELIER_{secret.upper()}_FILE": f"/run/secrets/{secret}" for secret in service["secrets"]}
        assert service["environment"] == variables
        assert {variable.removeprefix("ATELIER_").lower() for variable in variables} <= Settings.model_fields.keys()
        assert set(service["secrets"]) == keys["secrets"].keys()


def test_our_services_are_confined() -> None:
    for name in ("cpu", "gpu", "training"):
        service = COMPOSE["services"][name]
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["deploy"]["resources"]["limits"]["memory"]


def test_the_documents_list_every_setting() -> None:
    text = (ROOT / "README.md").read_text()
    assert [name for name in Settings.model_fields if f"ATELIER_{name.upper()}" not in text] == []
