"""The one path from bytes to pixels, used when training, when exporting and when serving."""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageCms, ImageOps

from service.contract.manifest import Fit

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")

# Pillow's own guard warns at one size and raises at another; decode() refuses at the caller's.
Image.MAX_IMAGE_PIXELS = None

MOST_SCANS = 100
"""Of a JPEG: each is a pass over all of the picture, and takes no more bytes than it likes. Progressive ones have some ten."""
_SCANS = tuple(bytes((0xFF, 0xDA, 0, 6 + 2 * components, components)) for components in (1, 2, 3, 4))
"""How one begins. Two bytes of it would be found now and then in the film that phones append to a picture."""
_FREE_READS, _BYTES_A_READ = 10_000, 50
"""How many pieces a file may be read in, and of what size on average beyond those: a decoder takes its time for each."""
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_SIXTEEN_TO_EIGHT = ((np.arange(65536) * 255 + 32767) // 65535).astype(np.uint8)

_SRGB = ImageCms.createProfile("sRGB")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class UnreadableImage(ValueError):
    """The bytes are not a picture that can be read; the message says why."""


class ImageTooLarge(ValueError):
    """The picture declares more pixels than allowed."""

    def __init__(self, width: int, height: int, most: int) -> None:
        super().__init__(f"the picture declares {width} x {height} pixels; at most {most:,} are read")
        self.most = most


def decode(content: bytes, max_pixels: int | None = None) -> Image.Image:
    """Reads a picture: upright, 8 bits, sRGB, in mode L, RGB or RGBA.

    PNG, JPEG, WebP, GIF (first frame), BMP and TIFF. EXIF orientation is applied, an embedded colour
    profile is converted to sRGB, 16-bit grey is scaled, palettes and CMYK are converted, alpha is kept.

    Args:
        max_pixels: the most pixels that the header may declare; checked before anything is unpacked.

    Raises:
        UnreadableImage: unknown format, damaged, truncated, or floating-point samples.
        ImageTooLarge: more than `max_pixels`.
    """
    image = _opened(content)
    if max_pixels is not None:
        for width, height in (image.size, _tile(image)):
            if width * height > max_pixels:
                raise ImageTooLarge(width, height, max_pixels)
    if image.format == "JPEG" and (scans := sum(map(content.count, _SCANS))) > MOST_SCANS:
        raise UnreadableImage(f"the JPEG has {scans:,} scans; at most {MOST_SCANS} are read")
    try:
        image.load()
        return _upright(_to_srgb(_to_eight_bits(image)), image)
    except UnreadableImage:
        raise
    except Exception as error:
        raise UnreadableImage(f"the {image.format} picture is damaged ({error})") from error


def declared_size(content: bytes) -> tuple[int, int]:
    """Width and height that a picture's header declares, before it is turned upright.

    Raises:
        UnreadableImage: unknown format.
    """
    return _opened(content).size


def _opened(content: bytes) -> Image.Image:
    if not content:
        raise UnreadableImage("the picture is empty")
    try:
        return Image.open(_Pieces(content), formats=FORMATS)
    except UnreadableImage:
        raise
    except Exception as error:  # a decoder may raise anything on hostile bytes
        raise UnreadableImage(f"not a picture in one of {', '.join(FORMATS)}") from error


class _Pieces(io.BytesIO):
    """A file's bytes, which are not given in any number of small pieces."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._left = _FREE_READS + len(content) // _BYTES_A_READ

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise UnreadableImage("the picture is in too many pieces")
        return super().read(size)


def _tile(image: Image.Image) -> tuple[int, int]:
    """Width and height of a TIFF's tiles, each of which is unpacked as a whole, however small the picture is."""
    tags = getattr(image, "tag_v2", {})
    width, height = (tags.get(tag, 0) for tag in (_TILE_WIDTH, _TILE_LENGTH))
    return (width, height) if isinstance(width, int) and isinstance(height, int) else (0, 0)


def fit(image: Image.Image, to: Fit) -> np.ndarray:
    """Brings a decoded picture to the size and channels that a manifest declares.

    Alpha is composited on white unless the model takes RGBA. Resizing is bicubic, with the filter
    widened when shrinking (Pillow's antialiasing); a picture of the right size is not resampled.

    Returns:
        uint8 (height, width, channels).
    """
    image = _with_channels(image, to.channels)
    width, height = image.size
    if (width, height) != (to.width, to.height):
        if to.mode == "stretch":
            image = image.resize((to.width, to.height), Image.Resampling.BICUBIC)
        elif to.mode == "cover":
            image = ImageOps.fit(image, (to.width, to.height), Image.Resampling.BICUBIC)
        else:
            image = _contain(image, to)
    pixels = np.asarray(image, np.uint8)
    return pixels.reshape(to.height, to.width, to.channels)


def unfit(pixels: np.ndarray, width: int, height: int, to: Fit) -> np.ndarray:
    """What a model made of a fitted picture, at the size that belongs to the picture: the way back of `fit`.

    Args:
        pixels: uint8 (s x to.height, s x to.width, channels).
        width, height: s times the picture's own.

    Returns:
        uint8 (height, width, channels).
    """
    if (height, width) == pixels.shape[:2]:
        return pixels
    image, scale = picture(pixels), pixels.shape[0] // to.height
    to = to.model_copy(update={"height": scale * to.height, "width": scale * to.width})
    if to.mode == "contain":
        left, top, inner_width, inner_height = _inside(width, height, to)
        image = image.crop((left, top, left + inner_width, top + inner_height))
    made = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), np.uint8)
    return made.reshape(height, width, -1)


def unfit_map(values: np.ndarray, width: int, height: int, to: Fit) -> np.ndarray:
    """The same for one number a pixel.

    Args:
        values: float32 (to.height, to.width).

    Returns:
        float32 (height, width), each between values of its neighbours.
    """
    if (height, width) == values.shape:
        return values
    image = Image.fromarray(values)
    if to.mode == "contain":
        left, top, inner_width, inner_height = _inside(width, height, to)
        image = image.crop((left, top, left + inner_width, top + inner_height))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float32)


def whole(image: Image.Image, channels: int, behind: Literal["white", "black"] = "white") -> np.ndarray:
    """A decoded picture at its own size, uint8 (height, width, channels); unless there are 4, alpha is composited on what is `behind`."""
    pixels = np.asarray(_with_channels(image, channels, behind), np.uint8)
    return pixels.reshape(image.height, image.width, channels)


def picture(pixels: np.ndarray) -> Image.Image:
    """uint8 (height, width, 1, 3 or 4) as a picture in mode L, RGB or RGBA."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _inside(width: int, height: int, to: Fit) -> tuple[int, int, int, int]:
    """Where a picture comes to lie that is scaled to fit inside: left, top, width, height."""
    scale = min(to.width / width, to.height / height)
    inner_width, inner_height = min(to.width, max(1, round(width * scale))), min(to.height, max(1, round(height * scale)))
    return (to.width - inner_width) // 2, (to.height - inner_height) // 2, inner_width, inner_height


def _contain(image: Image.Image, to: Fit) -> Image.Image:
    left, top, width, height = _inside(*image.size, to)
    fill: Any = to.fill if image.mode == "L" else (to.fill,) * 3 + (255,) * (image.mode == "RGBA")
    canvas = Image.new(image.mode, (to.width, to.height), fill)
    canvas.paste(image.resize((width, height), Image.Resampling.BICUBIC), (left, top))
    return canvas


def _with_channels(image: Image.Image, channels: int, behind: str = "white") -> Image.Image:
    if image.mode == "RGBA" and channels != 4:
        image = Image.alpha_composite(Image.new("RGBA", image.size, behind), image).convert("RGB")
    mode = _MODES[channels]
    return image if image.mode == mode else image.convert(mode)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Palettes, 1-bit, 16-bit and exotic modes to L, LA, RGB, RGBA, CMYK or LAB; the profile stays with it."""
    mode = image.mode
    if mode.startswith("I"):
        samples = np.clip(np.asarray(image), 0, 65535).astype(np.uint16)
        scaled = Image.fromarray(_SIXTEEN_TO_EIGHT[samples])
        if isinstance(clear := image.info.get("transparency"), int):
            scaled.putalpha(Image.fromarray(np.where(samples == clear, 0, 255).astype(np.uint8)))
        scaled.info["icc_profile"] = image.info.get("icc_profile")
        return scaled
    if mode == "F":
        raise UnreadableImage("floating-point samples have no defined white: convert them to 8 or 16 bits")
    if mode in ("P", "PA") or (mode in ("L", "RGB", "1") and "transparency" in image.info):
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    if mode in ("La", "RGBa"):
        return image.convert("LA" if mode == "La" else "RGBA")
    if mode in ("L", "LA", "RGB", "RGBA", "CMYK", "LAB"):
        return image
    return image.convert("L" if mode == "1" else "RGB")


def _to_srgb(image: Image.Image) -> Image.Image:
    """L, RGB or RGBA in sRGB: through the embedded profile, where there is a usable one that is not sRGB itself."""
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    colours = image.convert(image.mode.removesuffix("A")) if alpha is not None else image
    profile = _profile(image)
    if profile is not None:
        try:
            colours = _converted(colours, profile)
        except ImageCms.PyCMSError:  # a profile of another colour space than the picture's: as good as none
            profile = None
    if profile is None and colours.mode not in ("L", "RGB"):
        colours = colours.convert("RGB")
    if alpha is not None:
        colours = colours.convert("RGB")
        colours.putalpha(alpha)
    return colours


def _converted(image: Image.Image, profile: Any) -> Image.Image:
    converted = ImageCms.profileToProfile(image, profile, _SRGB, outputMode="RGB")
    assert converted is not None
    return converted


def _profile(image: Image.Image) -> Any:
    """The profile to convert from; nothing where there is none, it is damaged, or it is sRGB in effect."""
    if image.mode == "LAB":
        return ImageCms.createProfile("LAB")
    embedded = image.info.get("icc_profile")
    if not embedded:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(embedded))
        if image.mode in ("RGB", "RGBA") and _is_srgb(profile):
            return None
    except (ImageCms.PyCMSError, OSError):
        return None
    return profile


def _is_srgb(profile: Any) -> bool:
    """Whether a profile moves no colour by more than two levels, which is its own rounding."""
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(27, 27, 3)
    moved = np.asarray(_converted(Image.fromarray(colours), profile))
    return bool(np.abs(moved.astype(int) - colours).max() <= 2)


def _upright(image: Image.Image, source: Image.Image) -> Image.Image:
    """Applies the orientation that the source's EXIF data declares; damaged EXIF data declares none."""
    try:
        orientation = int(source.getexif().get(0x0112, 1))
    except Exception:
        return image
    method = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(orientation)
    return image if method is None else image.transpose(method)
