"""Pictures four times as large: networks, and small pictures made of large ones, that SRResNet and SRGAN share."""

from __future__ import annotations

import io
from typing import Any, Literal

import keras
import numpy as np
from keras import layers, ops
from PIL import Image, ImageFilter

from service.contract import images
from service.contract.manifest import SCALES, Fit
from training.data import Dataset
from training.data.pixels import mirrored, to_floats, to_pixels
from training.layers import convolution, from_pixels, infer, serve, spread
from training.layers import to_pixels as graph_to_pixels
from training.loop import evenly, group_sheet
from training.problems import TrainingError
from training.translation import cropped

SCALE = SCALES["upscaled"]
FINE = 8
"""Channels at the full size."""
CLEAN = 0.2
"""The share of pictures that are reduced only, where others are spoilt."""
BATCH_PIXELS = 2**21
"""Of the largest batch's answers: it takes some 200 MB."""
SHOWN = 8
TAPS = 5
"""Pixels each way that a bicubic one is made of, at most."""

AROUND = 9
"""Small pixels each way over which colours are kept: a detail has none, a patch of colour has."""

Degradation = Literal["clean", "real"]


def network(size: int, channels: int, width: int, blocks: int) -> keras.Model:
    """SRResNet without normalisation: pictures (batch, size, size, channels) in -1..1 -> (batch, 4 size, 4 size, channels).

    Residual blocks at the small size (Ledig et al. 2017, figure 4; without batch normalisation: Lim et al. 2017, section 3.1), one
    pixel shuffle, and a convolution at the large size that evens out what would else be a pattern of squares. All of it is added to
    the bicubic picture, and starts as nothing.
    """
    pictures = keras.Input((size, size, channels), name="pictures")
    x = start = convolution(width)(pictures)
    for _ in range(blocks):
        y = convolution(width, activation="relu")(x)
        x = layers.Add()([x, layers.Conv2D(width, 3, padding="same", kernel_initializer="zeros")(y)])
    x = layers.Add()([start, convolution(width)(x)])
    x = ops.relu(spread(convolution(FINE * SCALE**2)(x), SCALE))
    detail = layers.Conv2D(channels, 3, padding="same", kernel_initializer="zeros")(x)
    return keras.Model(pictures, bicubic(pictures) + detail, name="upscaler")


def bicubic(pictures: Any) -> Any:
    """Four times as large with a fixed convolution of each channel by itself; at the edges the picture goes on as its last pixels.

    Keys' kernel with a = -0.5, which is Pillow's.
    """
    _, height, width, channels = pictures.shape
    rows = _phases()
    kernel = np.einsum("ip,jq->ijpq", rows, rows).reshape(TAPS, TAPS, 1, SCALE**2).repeat(channels, axis=2).astype(np.float32)
    x = ops.depthwise_conv(_continued(pictures, TAPS // 2), kernel, padding="valid")
    x = ops.transpose(ops.reshape(x, (-1, height, width, channels, SCALE, SCALE)), (0, 1, 4, 2, 5, 3))
    return ops.reshape(x, (-1, SCALE * height, SCALE * width, channels))


def _phases() -> np.ndarray:
    """Weights (taps, 4) of the pixels around, for each of the four new pixels in an old one."""
    offsets = (np.arange(SCALE) + 0.5) / SCALE - 0.5
    distance = np.abs(np.arange(TAPS)[:, None] - TAPS // 2 - offsets)
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    return np.where(distance < 1, near, np.where(distance < 2, far, 0.0))


def _continued(x: Any, pixels: int) -> Any:
    """(batch, h, w, c) with its outermost pixels repeated on each side."""
    for axis in (1, 2):
        first, last = (ops.take(x, [index] * pixels, axis=axis) for index in (0, x.shape[axis] - 1))
        x = ops.concatenate([first, x, last], axis=axis)
    return x


def reduced(pictures: np.ndarray) -> np.ndarray:
    """uint8 (n, h, w, c) -> (n, h / 4, w / 4, c): bicubic, widened against aliasing (Pillow's)."""
    return np.stack([np.asarray(_smaller(Image.fromarray(picture), Image.Resampling.BICUBIC)) for picture in pictures])


def _smaller(image: Image.Image, filter: Image.Resampling) -> Image.Image:
    return image.resize((image.width // SCALE, image.height // SCALE), filter)


def drawn(model: keras.Model, held: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The sheet of a network in training."""
    small, large = held
    return sheet(to_pixels(infer(model, small, to_floats)[0]), small, large)


def spoilt(pictures: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The same as cameras and the net leave pictures: blurred, reduced by one filter or another, noisy, compressed as JPEG.

    A single pass of the kinds of degradation of Wang et al. 2021 (Real-ESRGAN), section 3.1; a fifth of the pictures is reduced only.
    """
    return np.stack([_spoilt(picture, random) for picture in pictures])


def _spoilt(picture: np.ndarray, random: np.random.Generator) -> np.ndarray:
    image = Image.fromarray(picture)
    if random.random() < CLEAN:
        return np.asarray(_smaller(image, Image.Resampling.BICUBIC))
    if random.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.2, 2.4)))
    filters = (Image.Resampling.BICUBIC, Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS)
    small = np.asarray(_smaller(image, filters[random.choice(4, p=(0.55, 0.15, 0.15, 0.15))]), np.float32)
    if random.random() < 0.4:
        grey = random.random() < 0.4
        noise = random.standard_normal((*small.shape[:2], 1 if grey else small.shape[2])) * random.uniform(1, 10)
        small = small + noise.astype(np.float32)
    pixels = np.clip(np.rint(small), 0, 255).astype(np.uint8)
    return read(as_jpeg(pixels, int(random.integers(35, 96)))) if random.random() < 0.7 else pixels


def as_jpeg(pixels: np.ndarray, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def read(content: bytes) -> np.ndarray:
    """The pixels of an encoded picture, uint8 (h, w, 3)."""
    return images.whole(images.decode(content), 3)


def pairs(pictures: np.ndarray, side: int, degradation: Degradation, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Small and large pictures, floats in -1..1: random squares, turned and mirrored at random.

    Args:
        side: of the large ones.
    """
    (large,) = cropped([pictures], side, random)
    large = np.stack([np.rot90(one, int(random.integers(4))) for one in mirrored(large, random)])
    small = reduced(large) if degradation == "clean" else spoilt(large, random)
    return to_floats(small), to_floats(large)


def checkerboard(made: Any, large: Any) -> Any:
    """What repeats from one small pixel to the next all over pictures and not in the truth (checkerboard artifacts: Odena et al. 2016): the
    mean difference at each of the 4 x 4 places that a small pixel becomes, less that of all of them; its size, averaged.

    Args:
        made, large: (batch, h, w, channels), of which the sides are multiples of 4.
    """
    _, height, width, channels = made.shape
    places = ops.reshape(made - large, (-1, height // SCALE, SCALE, width // SCALE, SCALE, channels))
    means = ops.mean(places, axis=(1, 3))
    return ops.mean(ops.abs(means - ops.mean(means, axis=(1, 2), keepdims=True)))


def side(data: Dataset, crop: int) -> int:
    """The side of the squares that a step sees.

    Raises:
        TrainingError: the pictures are grey, or the side is no multiple of 4.
    """
    found = min(crop, data.shape[0] // SCALE * SCALE)
    if data.shape[2] != 3:
        raise TrainingError(f"{data.source} is grey; upscalers are trained on colour (--channels 3).")
    if found % SCALE:
        raise TrainingError(f"--crop {found}: it has to be a multiple of {SCALE}.")
    return found


def held_out(data: Dataset, side: int, degradation: Degradation) -> tuple[np.ndarray, np.ndarray]:
    """Small and large pictures of the validation split, uint8; the large ones cut to a side."""
    large = evenly(data.validation.images, SHOWN)[:, :side, :side]
    return (reduced(large) if degradation == "clean" else spoilt(large, np.random.default_rng(0))), large


def sheet(made: np.ndarray, small: np.ndarray, large: np.ndarray) -> np.ndarray:
    """Small pictures with large pixels, bicubic, upscaled, the truth; two such groups in a row."""
    return group_sheet([squares(small), enlarged(small), made, large], 2)


def squares(small: np.ndarray) -> np.ndarray:
    """(n, h, w, c) -> (n, 4 h, 4 w, c), each pixel as a square."""
    return small.repeat(SCALE, axis=1).repeat(SCALE, axis=2)


def enlarged(small: np.ndarray) -> np.ndarray:
    """Pillow's bicubic pictures, uint8 (n, h, w, c) -> (n, 4 h, 4 w, c)."""
    size = (small.shape[2] * SCALE, small.shape[1] * SCALE)
    return np.stack([np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)) for picture in small])


def serving(network: keras.Model) -> dict[str, keras.Model]:
    """`upscaler`: images -> upscaled."""
    _, tile, _, channels = network.input.shape
    pixels, pictures = from_pixels(tile, channels)
    return {"upscaler": serve([pixels], {"upscaled": graph_to_pixels(coloured(network(pictures, training=False), pictures))})}


def coloured(made: Any, pictures: Any) -> Any:
    """Upscaled pictures in the colours of the small ones: less by how far they differ from bicubic ones over AROUND pixels."""
    drift = layers.AveragePooling2D(SCALE)(made - bicubic(pictures))
    return made - bicubic(layers.AveragePooling2D(AROUND, strides=1, padding="same")(drift))


def samples(graph: keras.Model, degradation: Degradation, data: Dataset) -> np.ndarray:
    """The card's sheet: pictures held out for choices, small, bicubic, upscaled, truth."""
    tile = graph.input["images"].shape[1]
    side = min(data.shape[0] // SCALE, tile)
    small, large = held_out(data, SCALE * side, degradation)
    padded = np.pad(small, ((0, 0), (0, tile - side), (0, tile - side), (0, 0)), mode="edge")
    return sheet(infer(graph, {"images": padded}, at_once=4)[0][:, : SCALE * side, : SCALE * side], small, large)


def described(title: str, config: Any) -> dict[str, Any]:
    """The manifest's fields: which small pictures an upscaler learned from, and in which tiles others go through it.

    Args:
        config: of a recipe, with degradation, tile, margin and feather.

    Raises:
        TrainingError: the margins leave nothing of a tile, or are too small to fade in.
    """
    tile, margin, feather = config.tile, config.margin, config.feather
    if tile <= 2 * margin or feather > margin:
        raise TrainingError(f"--tile {tile} --margin {margin} --feather {feather}: a tile has two margins, in which it fades.")
    return {
        "title": f"{title}, four times as large{', for pictures as they are uploaded' * (config.degradation == 'real')}",
        "fit": Fit(height=tile, width=tile, channels=3, mode="cover"),
        "large": "tile",
        "margin": margin,
        "feather": feather,
        "largest_batch": max(1, min(64, BATCH_PIXELS // (SCALE * tile) ** 2)),
    }
