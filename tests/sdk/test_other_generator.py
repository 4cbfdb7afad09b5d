"""What openapi-generator, the other widespread generator, makes of the document: its Python client calls every operation too."""

from __future__ import annotations

import base64
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import ROOT, Server, pixels

from service.page import FOLDER

GENERATE = ["generate", "--generator-name", "python", "--additional-properties", "packageName=atelier_other"]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("other")
    command = [str(Path(sys.executable).parent / "openapi-generator-cli"), *GENERATE]
    command += ["--input-spec", str(ROOT / "build" / "openapi.json"), "--output", str(folder)]
    result = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=300, check=False)
    assert (folder / "atelier_other").is_dir(), result.stdout[-3000:] + result.stderr
    sys.path.insert(0, str(folder))
    yield importlib.import_module("atelier_other")
    sys.path.remove(str(folder))


@pytest.fixture
def client(package: Any, server: Server) -> Iterator[Any]:
    with package.ApiClient(package.Configuration(host=server.url, access_token="admin")) as client:
        yield client


def picture(name: str) -> bytes:
    return (FOLDER / "examples" / name).read_bytes()


def test_pictures(package: Any, client: Any) -> None:
    atelier = package.PicturesApi(client)
    made = atelier.generate(package.GenerateRequest(n=3, seed=7))
    assert (len(made.images), made.seed) == (3, 7)
    assert atelier.generate(package.GenerateRequest(latents=made.latents)).images == made.images
    assert atelier.digits(package.DigitsRequest(digits="2026")).labels == [2, 0, 2, 6]
    assert atelier.embed(picture("fig-small.png")).dimension == 1280
    assert pixels(atelier.reconstruct(picture("digit-3.png"))).shape == (28, 28)
    assert pixels(atelier.translate(picture("relief-east-asia.jpg"))).shape == (240, 320, 3)
    assert pixels(atelier.upscale(picture("fig-small.png"))).shape == (352, 528, 3)
    assert pixels(atelier.swap(picture("face-wink-twitter.png"), "google")).shape == (64, 64, 3)
    found = atelier.anomaly(picture("brick-scratched.png"))
    assert found.is_anomalous
    assert pixels(atelier.inpaint(picture("brick-scratched.png"), base64.b64decode(found.mask))).shape[:2] == (96, 96)
    for decoding in ("beam", "greedy", "sample"):
        assert atelier.caption(picture("scene-owl-books.jpg"), decoding=decoding).caption


def test_catalogue_and_health(package: Any, client: Any) -> None:
    catalogue = package.CatalogueApi(client)
    assert "vae" in {entry.name for entry in catalogue.list_models().models}
    assert catalogue.show_model("vae").name == "vae"
    assert "vae" in catalogue.reload_models().unchanged
    health = package.HealthApi(client)
    assert health.live().status == "live"
    assert health.ready().ready


def test_protocol(package: Any, client: Any) -> None:
    protocol, model = package.OpenInferenceProtocolApi(client), "generate.vae-map"
    protocol.server_live()
    protocol.server_ready()
    assert protocol.server_metadata().name == "atelier"
    protocol.model_ready(model)
    assert protocol.model_config(model).name == model
    (port,) = protocol.model_metadata(model).inputs
    noise = package.InputTensor(name=port.name, shape=[1, 2], datatype=port.datatype, data=[0.5, -1])
    assert protocol.infer(model, package.InferenceRequest(inputs=[noise])).outputs[-1].name == "images"


def test_errors(package: Any, client: Any) -> None:
    atelier = package.PicturesApi(client)
    with pytest.raises(package.exceptions.NotFoundException) as unknown:
        atelier.generate(package.GenerateRequest(model="nobody"))
    assert unknown.value.data.code == package.Code.UNKNOWN_MODEL
    with pytest.raises(package.exceptions.UnprocessableEntityException) as invalid:
        atelier.swap(picture("face-wink-twitter.png"), "nobody")
    assert [step.actual_instance for step in invalid.value.data.errors[0].loc] == ["body", "identity"]
    with pytest.raises(package.ApiException) as large:
        atelier.upscale(picture("relief-east-asia.jpg"))
    assert (large.value.status, large.value.data.limit.name) == (413, "output_pixels")
    with pytest.raises(package.exceptions.NotFoundException):
        atelier.show_request("over")


def test_every_operation_is_called(operations: list[str]) -> None:
    assert set(operations) <= set(re.findall(r"\.(\w+)\(", Path(__file__).read_text()))
