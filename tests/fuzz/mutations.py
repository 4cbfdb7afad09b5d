"""Pictures that are broken on purpose: each number is a picture, the same in every process."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image, ImageCms
from support import encoded

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP")
MOST_STEPS = 8
INTERESTING = (0, 1, 2, 3, 4, 7, 8, 16, 32, 127, 128, 255, 256, 1000, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


@cache
def seeds() -> dict[str, list[bytes]]:
    """By format, whole pictures of each kind that it has."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 40, 4), np.uint8)
    rgb, rgba, grey = Image.fromarray(noise[..., :3]), Image.fromarray(noise), Image.fromarray(noise[..., 0])
    palette, bits, deep = rgb.quantize(16), grey.convert("1"), Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    told = {"exif": exif, "icc_profile": profile}
    return {
        "PNG": [
            *(encoded(one) for one in (rgb, rgba, grey, palette, bits, deep, grey.convert("LA"))),
            encoded(rgb, **told),
            encoded(palette, transparency=0),
        ],
        "JPEG": [
            *(encoded(one, "JPEG") for one in (rgb, grey, rgb.convert("CMYK"))),
            encoded(rgb, "JPEG", progressive=True, **told),
            encoded(rgb, "JPEG", comment=b"a comment", restart_marker_rows=1),
        ],
        "WEBP": [
            encoded(rgb, "WEBP"),
            encoded(rgba, "WEBP", lossless=True, **told),
            encoded(rgb, "WEBP", save_all=True, append_images=[rgba]),
        ],
        "GIF": [
            encoded(palette, "GIF"),
            encoded(grey, "GIF", interlace=1, comment=b"a comment"),
            encoded(palette, "GIF", save_all=True, append_images=[rgb.rotate(90).quantize(8)], transparency=1),
        ],
        "TIFF": [
            *(encoded(one, "TIFF") for one in (rgb, rgba, grey, palette, bits, deep, rgb.convert("CMYK"), rgb.convert("LAB"))),
            *(encoded(rgb, "TIFF", compression=kind) for kind in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")),
            encoded(bits, "TIFF", compression="group4"),
            encoded(rgb, "TIFF", save_all=True, append_images=[grey], **told),
        ],
        "BMP": [encoded(one, "BMP") for one in (rgb, rgba, grey, palette, bits)],
    }


def mutated(number: int) -> tuple[str, bytes]:
    """A format, and bytes that begin as a picture in it."""
    choose = random.Random(number)
    kind = FORMATS[number % len(FORMATS)]
    content = bytearray(choose.choice(seeds()[kind]))
    for _ in range(min(choose.randint(1, MOST_STEPS), choose.randint(1, MOST_STEPS))):
        choose.choice(STEPS)(content, choose)
    if kind == "PNG" and choose.random() < 0.7:
        return kind, with_checksums(bytes(content))  # or the decoder sees no further than the first chunk that was touched
    return kind, bytes(content)


def with_checksums(content: bytes) -> bytes:
    """A PNG's chunks with the checksums that belong to them."""
    whole, offset = content[:8], 8
    while offset + 12 <= len(content):
        length = int.from_bytes(content[offset : offset + 4], "big")
        chunk = content[offset + 4 : offset + 8 + length]
        whole += content[offset : offset + 4] + chunk + struct.pack(">I", zlib.crc32(chunk))
        offset += 12 + length
    return whole + content[offset:]


def _place(content: bytearray, choose: random.Random) -> int:
    """Somewhere, the first hundred bytes as likely as all the rest: headers are there."""
    return choose.randrange(min(100, len(content)) if choose.random() < 0.5 else len(content)) if content else 0


def _flip(content: bytearray, choose: random.Random) -> None:
    place = _place(content, choose)
    content[place : place + 1] = bytes(byte ^ (1 << choose.randrange(8)) for byte in content[place : place + 1])


def _byte(content: bytearray, choose: random.Random) -> None:
    place = _place(content, choose)
    content[place : place + 1] = bytes([choose.randrange(256)])


def _number(content: bytearray, choose: random.Random) -> None:
    """Some number that is at the edge of something, in a size and order that formats use."""
    place, form = _place(content, choose), choose.choice(("<H", ">H", "<I", ">I"))
    size = struct.calcsize(form)
    content[place : place + size] = struct.pack(form, choose.choice(INTERESTING) % 256**size)


def _cut(content: bytearray, choose: random.Random) -> None:
    del content[_place(content, choose) :]


def _drop(content: bytearray, choose: random.Random) -> None:
    place = _place(content, choose)
    del content[place : place + choose.randint(1, 64)]


def _repeat(content: bytearray, choose: random.Random) -> None:
    place, length = _place(content, choose), choose.randint(1, 200)
    content[place:place] = content[place : place + length] * choose.randint(1, 20)


def _insert(content: bytearray, choose: random.Random) -> None:
    place = _place(content, choose)
    content[place:place] = choose.randbytes(choose.randint(1, 64))


def _splice(content: bytearray, choose: random.Random) -> None:
    """The end of another picture, perhaps of another format."""
    other = choose.choice(seeds()[choose.choice(FORMATS)])
    content[_place(content, choose) :] = other[choose.randrange(len(other)) :]


STEPS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip,
    _byte,
    _byte,
    _number,
    _number,
    _cut,
    _drop,
    _repeat,
    _insert,
    _splice,
)
