"""Figures of upscaled and inpainted pictures, through the server: beside a bicubic picture, and beside what OpenCV fills holes with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from service import media
from training import metrics, upscaling
from training.backbone import Features
from training.data import Dataset, masks
from training.loop import evenly, group_sheet
from training.problems import TrainingError
from training.served import Served, decoded

SHAVED = 4
"""Pixels at each edge that do not count, as is usual in the literature."""
QUALITY = 60
"""Of the JPEG files that pictures are also uploaded as."""
UPSCALED = "upscaled.png"
INPAINTED = "inpainted.png"
SHOWN, DETAIL = 8, 160
HOLED = 256
"""Side of the pictures in which holes are."""

Figures = dict[str, tuple[float, float | None, str | None]]


async def measure_upscale(model: Served, data: Dataset, folder: Path) -> tuple[Figures, dict[str, Any]]:
    """What becomes of the test pictures, reduced to a quarter each way and uploaded as PNG and as JPEG of quality 60."""
    truth, features = _in_colour(data, model), Features("lite1")
    small = upscaling.reduced(truth)
    figures: Figures = {}
    for name, encode in (("upscale", media.encode), ("upscale_jpeg", partial(upscaling.as_jpeg, quality=QUALITY))):
        uploaded = np.stack([upscaling.read(encode(picture)) for picture in small])
        made = np.stack([decoded(answer["image"]) for answer in await model.shown("upscale", small, encode=encode)])
        plain = upscaling.enlarged(uploaded)
        if name == "upscale":
            _sheet(small, plain, made, truth, folder / UPSCALED)
            shift = np.abs(made.mean(axis=(1, 2)) - plain.mean(axis=(1, 2))).max()
            figures["upscale_colour_shift"] = float(shift), None, None
        figures[f"{name}_psnr"] = _closeness(made, truth), _closeness(plain, truth), "bicubic"
        figures[f"{name}_feature_distance"] = features.distance(made, truth), features.distance(plain, truth), "bicubic"
    return figures, {"pictures": len(truth)}


async def measure_inpaint(model: Served, data: Dataset, folder: Path) -> tuple[Figures, dict[str, Any]]:
    """What becomes of holes of each kind in the middles of the test pictures."""
    random, features = np.random.default_rng(0), Features("lite1")
    pictures = _in_colour(data, model)
    start = max(0, pictures.shape[1] - HOLED) // 2
    truth = pictures[:, start : start + HOLED, start : start + HOLED]
    found: dict[str, dict[str, np.ndarray]] = {}
    shown = list[list[np.ndarray]]()
    for kind in masks.KINDS:
        holes = masks.drawn(kind, len(truth), truth.shape[1], random)
        given = np.where(holes[..., None], np.uint8(0), truth)
        answers = await model.filled("inpaint", given, holes)
        made = {"ours": np.stack([decoded(answer["image"]) for answer in answers])}
        made |= {name: np.stack([fill(*pair) for pair in zip(given, holes, strict=True)]) for name, fill in PEERS.items()}
        found[kind] = {name: _hole_figures(pictures, truth, holes, features) for name, pictures in made.items()}
        first = len(shown) % len(truth)
        grey = np.where(holes[..., None], np.uint8(128), truth)
        shown += [[grey[at], made["telea"][at], made["ours"][at], truth[at]] for at in (first, (first + 9) % len(truth))]
        if (changed := int((made["ours"] != truth)[~holes].sum())) != 0:
            raise TrainingError(f"{model.model} changed {changed} values outside of holes.")
    Image.fromarray(group_sheet([np.stack(column) for column in zip(*shown, strict=True)], 2)).save(folder / INPAINTED)
    means = {name: np.mean([found[kind][name] for kind in found], axis=0) for name in ("ours", *PEERS)}
    figures = _beside("inpaint", means, "fsr")
    figures["inpaint_centre_psnr"] = float(found["centre"]["ours"][0]), float(found["centre"]["telea"][0]), NAMES["telea"]
    for kind in ("text", "scratches"):
        figures |= _beside(f"inpaint_{kind}", found[kind], "fsr")
    details = {kind: {name: values.round(4).tolist() for name, values in of.items()} for kind, of in found.items()}
    return figures, {"pictures": len(truth), "psnr_and_feature_distance": details}


def _in_colour(data: Dataset, model: Served) -> np.ndarray:
    """The test pictures (n, side, side, 3), of which a side is a multiple of four."""
    pictures = data.test.images
    if pictures.shape[-1] != 3:
        raise TrainingError(f"--data {data.source} is grey; the figures of {model.model} are of pictures in colour.")
    height, width = (side // 4 * 4 for side in pictures.shape[1:3])
    return pictures[:, :height, :width]


def _hole_figures(pictures: np.ndarray, truth: np.ndarray, holes: np.ndarray, features: Features) -> np.ndarray:
    """PSNR within the holes, and the distance on features of the whole pictures."""
    pairs = zip(pictures, truth, holes, strict=True)
    psnr = np.mean([metrics.peak_signal_to_noise(b[hole][None], a[hole][None]) for a, b, hole in pairs])
    return np.array([psnr, features.distance(pictures, truth)])


def _beside(name: str, found: dict[str, np.ndarray], peer: str) -> Figures:
    ours, theirs = found["ours"], found[peer]
    figures = zip(("psnr", "feature_distance"), ours, theirs, strict=True)
    return {f"{name}_{figure}": (float(own), float(other), NAMES[peer]) for figure, own, other in figures}


def _telea(picture: np.ndarray, hole: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.inpaint(picture, hole.astype(np.uint8), 3, cv2.INPAINT_TELEA))


def _fsr(picture: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Frequency selective reconstruction (Genser et al. 2018), the fast one."""
    filled = np.zeros_like(picture)
    cv2.xphoto.inpaint(picture, (~hole).astype(np.uint8), filled, cv2.xphoto.INPAINT_FSR_FAST)
    return np.where(hole[..., None], filled, picture)


PEERS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {"telea": _telea, "fsr": _fsr}
NAMES = {"telea": "OpenCV's Telea", "fsr": "OpenCV's FSR, fast"}


def _closeness(pictures: np.ndarray, truth: np.ndarray) -> float:
    inner = (slice(None), slice(SHAVED, -SHAVED), slice(SHAVED, -SHAVED))
    return metrics.peak_signal_to_noise(metrics.luma(truth[inner]), metrics.luma(pictures[inner]))


def _sheet(small: np.ndarray, plain: np.ndarray, made: np.ndarray, truth: np.ndarray, path: Path) -> None:
    """The middles of test pictures at their own scale: small, bicubic, upscaled, truth; two such groups in a row."""
    start = max(0, (truth.shape[1] - DETAIL) // 2)
    inner = slice(start, start + DETAIL)
    columns = [evenly(pictures, SHOWN)[:, inner, inner] for pictures in (upscaling.squares(small), plain, made, truth)]
    Image.fromarray(group_sheet(columns, 2)).save(path)
