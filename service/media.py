"""Pictures going out: which format the caller accepts, and the bytes of it."""

from __future__ import annotations

import base64
import io
import math
import os
from functools import lru_cache

import mimeparse
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from service.contract import images
from service.problems import MEDIA_TYPE as PROBLEM
from service.problems import Code, ProblemError

PNG, JPEG, WEBP, JSON = "image/png", "image/jpeg", "image/webp", "application/json"
PICTURES = (PNG, JPEG, WEBP)
FORMATS = {"png": PNG, "jpeg": JPEG, "webp": WEBP}
"""By the names that files' endings give them."""
LARGEST_SIDE = {JPEG: 65_535, WEBP: 16_383}
"""What the format itself allows; PNG has no limit that matters."""


MOST_ACCEPTED = 1000
"""Characters of an Accept header; a browser sends some 150."""


def negotiate(accept: str | None, default: str, offered: tuple[str, ...]) -> str:
    """The format to answer in, as the Accept header says; where it leaves a choice, `default`, then PNG.

    Raises:
        ProblemError: 406, nothing that it names can be given.
    """
    if not accept:
        return default
    if len(accept) > MOST_ACCEPTED:
        raise ProblemError(Code.NOT_ACCEPTABLE, f"Accept is {len(accept):,} characters long; at most {MOST_ACCEPTED:,} are read.")
    return _negotiate(accept, default, offered)


@lru_cache(maxsize=128)
def _negotiate(accept: str, default: str, offered: tuple[str, ...]) -> str:
    kinds = [kind for kind in accept.lower().split(",") if kind.partition(";")[0].strip() != PROBLEM]
    if not kinds:  # errors are taken in their form; of success nothing is said
        return default
    ranked = sorted(offered, key=lambda kind: (kind == default, kind == PNG, kind == JPEG))  # mimeparse wants the best last
    try:
        chosen = str(mimeparse.best_match(ranked, ",".join(kinds)))
    except mimeparse.MimeTypeParseException:
        chosen = ""
    if not chosen:
        raise ProblemError(Code.NOT_ACCEPTABLE, f"Accept is {accept}; there is {', '.join(offered)}.")
    return chosen


def encode(pixels: np.ndarray, media_type: str = PNG, xmp: bytes | None = None) -> bytes:
    """uint8 (height, width, 1, 3 or 4) as PNG, JPEG (quality 95; alpha on white) or WebP (lossless).

    Args:
        xmp: a packet of metadata to carry along, UTF-8.
    """
    image = images.picture(pixels)
    if media_type == JPEG:
        return _jpeg(image, xmp)
    buffer = io.BytesIO()
    if media_type == WEBP:
        image.save(buffer, "WEBP", lossless=True, xmp=xmp or b"")
    else:
        text = PngInfo()
        if xmp is not None:
            text.add_itxt("XML:com.adobe.xmp", xmp.decode())
        image.save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def _jpeg(image: Image.Image, xmp: bytes | None) -> bytes:
    """While Pillow compresses a JPEG, other threads run only if a file of the system takes it: Linux has such in memory."""
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    with os.fdopen(os.memfd_create("jpeg"), "w+b") if hasattr(os, "memfd_create") else io.BytesIO() as file:
        image.save(file, "JPEG", quality=95, xmp=xmp or b"")
        file.seek(0)
        return bytes(file.read())


def encode_base64(pixels: np.ndarray, xmp: bytes | None = None) -> str:
    """The PNG of a picture as base64 text, for JSON answers."""
    return base64.b64encode(encode(pixels, PNG, xmp)).decode("ascii")


def side_by_side(pictures: np.ndarray) -> np.ndarray:
    """Pictures (n, height, width, channels) in one row (height, n x width, channels)."""
    number, height, width, channels = pictures.shape
    return pictures.swapaxes(0, 1).reshape(height, number * width, channels)


def sheet_columns(number: int) -> int:
    """How many pictures a contact sheet has in a row: as square as can be."""
    return math.isqrt(number - 1) + 1


def contact_sheet(pictures: np.ndarray) -> np.ndarray:
    """Pictures (n, height, width, channels) in rows, as square as can be; the last row is filled with black."""
    number, height, width, channels = pictures.shape
    columns = sheet_columns(number)
    rows = -(-number // columns)
    sheet = np.zeros((rows * columns, height, width, channels), np.uint8)
    sheet[:number] = pictures
    return sheet.reshape(rows, columns, height, width, channels).swapaxes(1, 2).reshape(rows * height, columns * width, channels)
