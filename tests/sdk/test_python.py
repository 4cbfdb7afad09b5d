"""The Python client: every operation and the errors, typed as mypy checks it."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from http import HTTPStatus
from io import BytesIO
from pathlib import Path

import atelier_client
import httpx
import numpy as np
import pytest
from atelier_client import AuthenticatedClient, Client
from atelier_client.api.catalogue import list_models, reload_models, show_model
from atelier_client.api.health import live, ready
from atelier_client.api.open_inference_protocol import (
    infer,
    model_config,
    model_metadata,
    model_ready,
    server_live,
    server_metadata,
    server_ready,
)
from atelier_client.api.pictures import (
    anomaly,
    caption,
    digits,
    embed,
    generate,
    inpaint,
    reconstruct,
    show_request,
    swap,
    translate,
    upscale,
)
from atelier_client.models import (
    AnomalyAnswer,
    AnomalyRequest,
    CaptionAnswer,
    CaptionRequest,
    Catalogue,
    Code,
    Decoding,
    DigitsAnswer,
    DigitsRequest,
    EmbedAnswer,
    EmbedRequest,
    GenerateAnswer,
    GenerateRequest,
    InferenceRequest,
    InferenceResponse,
    InpaintRequest,
    InputTensor,
    Live,
    Manifest,
    ModelConfig,
    ModelMetadata,
    Problem,
    Ready,
    ReconstructRequest,
    Reloaded,
    ServerMetadata,
    SwapRequest,
    TranslateRequest,
    UpscaleRequest,
)
from atelier_client.types import File
from support import ROOT, Server, pixels

from service.page import FOLDER

MODEL = "generate.vae-map"


@pytest.fixture
def atelier(server: Server) -> Iterator[Client]:
    with Client(server.url, timeout=httpx.Timeout(60)) as client:
        yield client


def picture(name: str) -> File:
    return File(BytesIO((FOLDER / "examples" / name).read_bytes()))


def shape(answer: File | Problem | None) -> tuple[int, ...]:
    """Of a picture that is the whole answer."""
    assert isinstance(answer, File)
    return pixels(answer.payload.read()).shape


def test_generate(atelier: Client) -> None:
    made = generate.sync(client=atelier, body=GenerateRequest(n=3, seed=7))
    assert isinstance(made, GenerateAnswer)
    assert (len(made.images), made.seed, made.model) == (3, 7, "vae")
    again = generate.sync(client=atelier, body=GenerateRequest(latents=made.latents))
    assert isinstance(again, GenerateAnswer)
    assert again.images == made.images
    assert not again.seed
    way = generate.sync(client=atelier, body=GenerateRequest(between=[1, 2], steps=5))
    assert isinstance(way, GenerateAnswer)
    assert len(way.latents) == 5


def test_digits(atelier: Client) -> None:
    written = digits.sync(client=atelier, body=DigitsRequest(digits="2026"))
    assert isinstance(written, DigitsAnswer)
    assert written.labels == [2, 0, 2, 6]
    assert pixels(base64.b64decode(written.images[0])).shape == (28, 28)


def test_embed(atelier: Client) -> None:
    answer = embed.sync(client=atelier, body=EmbedRequest(image=picture("fig-small.png")))
    assert isinstance(answer, EmbedAnswer)
    assert len(answer.embedding) == answer.dimension == 1280
    assert answer.labels
    assert answer.labels[0].probability >= answer.labels[1].probability


def test_embed_without_waiting(server: Server) -> None:
    async def both() -> list[EmbedAnswer | Problem | None]:
        async with Client(server.url, timeout=httpx.Timeout(60)) as client:
            bodies = [EmbedRequest(image=picture(f"digit-{digit}.png"), model="vae") for digit in (3, 8)]
            return await asyncio.gather(*(embed.asyncio(client=client, body=body) for body in bodies))

    assert [answer.dimension for answer in asyncio.run(both()) if isinstance(answer, EmbedAnswer)] == [16, 16]


def test_operations_from_picture_to_picture(atelier: Client) -> None:
    assert shape(reconstruct.sync(client=atelier, body=ReconstructRequest(image=picture("digit-3.png")))) == (28, 28)
    relief = TranslateRequest(image=picture("relief-east-asia.jpg"), model="pix2pix-relief-to-satellite")
    assert shape(translate.sync(client=atelier, body=relief)) == (240, 320, 3)
    assert shape(upscale.sync(client=atelier, body=UpscaleRequest(image=picture("fig-small.png")))) == (352, 528, 3)
    assert shape(swap.sync(client=atelier, body=SwapRequest(image=picture("face-wink-twitter.png"), identity="google"))) == (64, 64, 3)


def test_anomaly_and_inpaint(atelier: Client) -> None:
    found = anomaly.sync(client=atelier, body=AnomalyRequest(image=picture("brick-scratched.png")))
    assert isinstance(found, AnomalyAnswer)
    assert found.is_anomalous
    assert found.regions[0].score > found.pixel_threshold
    mask = File(BytesIO(base64.b64decode(found.mask)))
    assert shape(inpaint.sync(client=atelier, body=InpaintRequest(image=picture("brick-scratched.png"), mask=mask)))[:2] == (96, 96)


@pytest.mark.parametrize("decoding", Decoding)
def test_caption(atelier: Client, decoding: Decoding) -> None:
    body = CaptionRequest(image=picture("scene-owl-books.jpg"), decoding=decoding, attention=True)
    answer = caption.sync(client=atelier, body=body)
    assert isinstance(answer, CaptionAnswer)
    assert answer.words[0].word in answer.caption
    assert answer.words[0].attention
    assert np.sum(answer.words[0].attention) == pytest.approx(1, abs=0.01)


def test_the_catalogue(atelier: Client, server: Server) -> None:
    models = list_models.sync(client=atelier)
    assert isinstance(models, Catalogue)
    assert {"vae", "cdcgan"} <= {entry.name for entry in models.models}
    vae = show_model.sync("vae", client=atelier)
    assert isinstance(vae, Manifest)
    assert vae.training.data.license_
    for key, expected in (("admin", Reloaded), ("nobody", Problem)):
        with AuthenticatedClient(server.url, token=key, timeout=httpx.Timeout(60)) as client:
            assert isinstance(reload_models.sync(client=client), expected)


def test_health(atelier: Client) -> None:
    assert isinstance(live.sync(client=atelier), Live)
    state = ready.sync(client=atelier)
    assert isinstance(state, Ready)
    assert state.ready
    assert server_live.sync_detailed(client=atelier).status_code == HTTPStatus.OK
    assert server_ready.sync_detailed(client=atelier).status_code == HTTPStatus.OK


def test_the_open_inference_protocol(atelier: Client) -> None:
    assert isinstance(server_metadata.sync(client=atelier), ServerMetadata)
    metadata = model_metadata.sync(MODEL, client=atelier)
    assert isinstance(metadata, ModelMetadata)
    assert isinstance(model_config.sync(MODEL, client=atelier), ModelConfig)
    assert model_ready.sync_detailed(MODEL, client=atelier).status_code == HTTPStatus.OK
    noise = InputTensor(name=metadata.inputs[0].name, shape=[1, 2], datatype="FP32", data=[0.5, -1])
    answer = infer.sync(MODEL, client=atelier, body=InferenceRequest(inputs=[noise]))
    assert isinstance(answer, InferenceResponse)
    assert [output.name for output in answer.outputs] == [output.name for output in metadata.outputs]


def test_errors(atelier: Client) -> None:
    unknown = generate.sync(client=atelier, body=GenerateRequest(model="nobody"))
    assert isinstance(unknown, Problem)
    assert (unknown.status, unknown.code) == (404, Code.UNKNOWN_MODEL)
    invalid = caption.sync(client=atelier, body=CaptionRequest(image=picture("digit-3.png"), beams=11))
    assert isinstance(invalid, Problem)
    assert (invalid.status, invalid.code) == (422, Code.INVALID_REQUEST)
    assert invalid.errors
    assert invalid.errors[0].loc == ["body", "beams"]
    large = upscale.sync(client=atelier, body=UpscaleRequest(image=picture("relief-east-asia.jpg")))
    assert isinstance(large, Problem)
    assert (large.status, large.code) == (413, Code.IMAGE_TOO_LARGE)
    assert large.limit
    assert (large.limit.name, large.limit.value) == ("output_pixels", 1_000_000)
    over = show_request.sync("over", client=atelier)
    assert isinstance(over, Problem)
    assert over.code is Code.NOT_FOUND


def test_the_readme(readme: dict[str, str], tmp_path: Path) -> None:
    result = subprocess.run([sys.executable, "-c", readme["python"]], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert pixels((tmp_path / "fig-large.png").read_bytes()).shape == (352, 528, 3)
    assert checked("--strict", "-c", readme["python"]).returncode == 0


def test_every_operation_is_called(operations: list[str]) -> None:
    called = set(re.findall(r"\b(\w+)\.(?:sync|asyncio)", Path(__file__).read_text()))
    assert set(operations) <= called


def test_the_types_are_right() -> None:
    result = checked("--strict", __file__)
    assert result.returncode == 0, result.stdout


def test_types_are_checked() -> None:
    call = "from atelier_client.models import Problem\ndef say(problem: Problem) -> None:\n    print(problem.code.upper(), problem.reason)"
    assert '"Problem" has no attribute "reason"' in checked("-c", call).stdout


def checked(*what: str) -> subprocess.CompletedProcess[str]:
    """mypy's words on a program that uses the client."""
    packages = Path(atelier_client.__file__).parent.parent
    command = [sys.executable, "-m", "mypy", "--config-file=", "--follow-imports=silent", *what]
    variables = os.environ | {"MYPYPATH": f"{packages}:{ROOT / 'tests'}:{ROOT}"}
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=300, check=False)
