"""From bytes to pixels: every kind of picture that people upload."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms
from support import encoded

from service.contract.images import ImageTooLarge, UnreadableImage, decode, fit
from service.contract.manifest import Fit


def gradient(width: int = 40, height: int = 24) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([x * 6, y * 10, 255 - x * 6], axis=-1).astype(np.uint8))


def grey(size: int = 28) -> Fit:
    return Fit(height=size, width=size, channels=1)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_come_back_exactly(kind: str) -> None:
    assert np.array_equal(np.asarray(decode(encoded(gradient(), kind))), np.asarray(gradient()))


def test_lossy_formats_come_back_nearly() -> None:
    for content in (encoded(gradient(), "JPEG", quality=95, subsampling=0), encoded(gradient(), "WEBP", quality=95)):
        difference = np.abs(np.asarray(decode(content)).astype(int) - np.asarray(gradient()))
        assert difference.mean() < 3


def test_gif_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue")]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(content).convert("RGB").getpixel((2, 2)) == (255, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = np.asarray(gradient())
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    assert np.array_equal(np.asarray(decode(content)), upright)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_data_declares_no_orientation() -> None:
    content = encoded(gradient(), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff\xff\xff")
    assert decode(content).size == (40, 24)


def test_cmyk_becomes_rgb() -> None:
    content = encoded(Image.new("CMYK", (6, 6), (0, 255, 255, 0)), "TIFF")
    assert decode(content).getpixel((3, 3)) == (255, 0, 0)
    red, green, blue = decode(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)).getpixel((8, 8))
    assert (red > 240, green < 15, blue < 15) == (True, True, True)


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    for kind in ("PNG", "TIFF"):
        found = np.asarray(decode(encoded(Image.fromarray(ramp), kind)))
        assert np.array_equal(found, np.rint(ramp / 257).astype(np.uint8))


def test_sixteen_bit_colour_keeps_its_high_byte() -> None:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    row = b"\x00" + struct.pack(">HHH", 65535, 32896, 0) * 2
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    assert decode(content).getpixel((0, 0)) == (255, 128, 0)


def test_sixteen_bit_transparency_is_kept() -> None:
    content = encoded(Image.fromarray(np.array([[0, 30000], [40000, 65535]], np.uint16)), transparency=30000)
    assert np.asarray(fit(decode(content), Fit(height=2, width=2, channels=4)))[..., 3].tolist() == [[255, 0], [255, 255]]


def test_palette_with_and_without_transparency() -> None:
    palette = Image.new("RGB", (8, 8), (10, 200, 30)).quantize(4)
    assert decode(encoded(palette)).getpixel((1, 1)) == (10, 200, 30)
    found = decode(encoded(palette, transparency=0))
    assert found.mode == "RGBA"
    assert fit(found, Fit(height=8, width=8, channels=3)).min() == 255


def test_alpha_is_composited_on_white_unless_the_model_takes_it() -> None:
    half = decode(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 128))))
    assert fit(half, Fit(height=4, width=4, channels=3)).tolist()[0][0] == [127, 127, 127]
    assert fit(half, Fit(height=4, width=4, channels=4)).tolist()[0][0] == [0, 0, 0, 128]
    grey_alpha = decode(encoded(Image.new("LA", (4, 4), (0, 0))))
    assert fit(grey_alpha, grey(4)).min() == 255


def test_bilevel_becomes_black_and_white() -> None:
    assert np.asarray(decode(encoded(Image.new("1", (3, 3), 1)))).tolist() == [[255] * 3] * 3


def _linear_profile(name: str = "line") -> bytes:
    """An RGB profile like sRGB but with linear curves: mid grey 0.5 there is 188 in sRGB."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", profile[128:132])[0]
    for index in range(count):
        tag, offset, size = struct.unpack(">4sII", profile[132 + 12 * index : 144 + 12 * index])
        if tag in (b"rTRC", b"gTRC", b"bTRC"):
            linear = b"curv" + b"\x00" * 8
            profile[offset : offset + size] = linear.ljust(size, b"\x00")
        elif tag == b"desc":
            body = bytes(profile[offset : offset + size])
            profile[offset : offset + size] = body.replace("sRGB".encode("utf-16-be"), name.encode("utf-16-be")).replace(
                b"sRGB", name.encode()
            )
    return bytes(profile)


def _linear_grey_profile() -> bytes:
    """A grey profile with a linear curve, by hand: header, white point, curve."""
    tags = {b"wtpt": b"XYZ " + struct.pack(">Iiii", 0, 63190, 65536, 54061), b"kTRC": b"curv" + b"\x00" * 8}
    header = struct.pack(">I4sI4s4s4s", 0, b"lcms", 0x02100000, b"mntr", b"GRAY", b"XYZ ") + b"\x00" * 12 + b"acsp"
    header = header.ljust(68, b"\x00") + struct.pack(">iii", 63190, 65536, 54061)
    table, body, offset = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        table += struct.pack(">4sII", name, offset + len(body), len(data))
        body += data
    whole = header.ljust(128, b"\x00") + table + body
    return struct.pack(">I", len(whole)) + whole[4:]


def test_colour_profiles_are_converted_to_srgb() -> None:
    grey = Image.new("L", (4, 4), 128)
    for image, profile in (
        (Image.new("RGB", (4, 4), (128, 128, 128)), _linear_profile()),
        (Image.new("RGBA", (4, 4), (128, 128, 128, 255)), _linear_profile()),
        (grey, _linear_grey_profile()),
        (grey.convert("LA"), _linear_grey_profile()),
        (Image.fromarray(np.full((4, 4), 128 * 257, np.uint16)), _linear_grey_profile()),
    ):
        red, green, blue = decode(encoded(image, icc_profile=profile)).getpixel((1, 1))[:3]
        assert 185 <= red <= 191, image.mode
        assert (green, blue) == (red, red)


def test_a_profile_is_known_by_what_it_does_not_by_its_name() -> None:
    named = _linear_profile("sRGB")
    assert "sRGB" in ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(named)))
    assert decode(encoded(Image.new("RGB", (4, 4), (128, 128, 128)), icc_profile=named)).getpixel((1, 1))[0] > 180


def test_the_srgb_profile_itself_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(np.asarray(decode(encoded(gradient(), icc_profile=profile))), np.asarray(gradient()))


def test_a_profile_that_does_not_fit_is_ignored() -> None:
    for profile in (b"no profile at all", ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()):
        assert np.array_equal(np.asarray(decode(encoded(gradient(), icc_profile=profile))), np.asarray(gradient()))


@pytest.mark.parametrize("size", [(1, 1), (20000, 1), (1, 20000), (28, 28), (3, 500)])
@pytest.mark.parametrize("mode", ["contain", "cover", "stretch"])
def test_any_size_fits(size: tuple[int, int], mode: str) -> None:
    found = fit(decode(encoded(Image.new("RGB", size, "white"))), Fit(height=28, width=20, channels=1, mode=mode))
    assert (found.shape, found.dtype, found.max()) == ((28, 20, 1), np.uint8, 255)
    if mode != "contain":
        assert found.min() == 255


def test_the_right_size_passes_unchanged() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    for mode in ("contain", "cover", "stretch"):
        declared = Fit(height=28, width=28, channels=1, mode=mode)
        assert np.array_equal(fit(decode(encoded(Image.fromarray(noise))), declared)[..., 0], noise)


def test_contain_fills_with_the_declared_grey() -> None:
    found = fit(Image.new("L", (40, 20), 200), Fit(height=20, width=20, channels=1, fill=7))
    assert (found[0, 0, 0], found[10, 10, 0], found[19, 0, 0]) == (7, 200, 7)


@pytest.mark.parametrize("content", [b"", b"This is a text, not a picture.", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM" + b"\x00" * 40])
def test_what_is_no_picture_is_unreadable(content: bytes) -> None:
    with pytest.raises(UnreadableImage):
        decode(content)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
def test_truncated_pictures_are_unreadable(kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    content = encoded(noise, kind)
    with pytest.raises(UnreadableImage):
        decode(content[: len(content) // 2])


def test_formats_that_are_not_offered_are_unreadable() -> None:
    with pytest.raises(UnreadableImage):
        decode(encoded(gradient(), "PPM"))


def test_floating_point_samples_are_refused_in_words() -> None:
    with pytest.raises(UnreadableImage, match="floating-point"):
        decode(encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"))


def test_a_small_file_that_declares_a_huge_picture_is_refused_before_unpacking() -> None:
    with pytest.raises(ImageTooLarge, match="100000 x 100000"):
        decode(bomb(), max_pixels=25_000_000)


def bomb() -> bytes:
    """A PNG of some 70 bytes that declares 100,000 x 100,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\x00" * 10)
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data))


def test_a_small_tiff_whose_tiles_are_huge_is_refused_before_unpacking() -> None:
    """One tile is unpacked as a whole, of however few pixels the picture is."""
    data, place = zlib.compress(bytes(6000 * 6000)), 8 + 2 + 12 * 10 + 4
    sizes = {256: 10, 257: 10, 258: 8, 259: 8, 262: 1, 277: 1, 322: 6000, 323: 6000, 324: place, 325: len(data)}
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sizes.items())
    content = b"II*\0" + struct.pack("<IH", 8, len(sizes)) + tags + bytes(4) + data
    assert len(content) < 50_000
    with pytest.raises(ImageTooLarge, match="6000 x 6000"):
        decode(content, max_pixels=25_000_000)


def test_a_jpeg_of_many_scans_is_refused() -> None:
    """Each is a pass over the whole picture, in a few bytes."""
    content = encoded(gradient(), "JPEG", progressive=True)
    last = content[content.rfind(b"\xff\xda") : -2]
    assert decode(content[:-2] + last * 50 + content[-2:]).size == (40, 24)
    assert decode(content + b"\xff\xda\x12" * 1000).size == (40, 24)  # a film behind it
    with pytest.raises(UnreadableImage, match="scans"):
        decode(content[:-2] + last * 200 + content[-2:])


def test_pictures_in_any_number_of_pieces_are_refused() -> None:
    png, jpeg, gif = encoded(gradient()), encoded(gradient(), "JPEG"), encoded(gradient(), "GIF")
    comment = b"!\xfe" + b"\x01a" * 40_000 + b"\x00"
    chunk = struct.pack(">I", 0) + b"teSt" + struct.pack(">I", zlib.crc32(b"teSt"))
    place = gif.index(b",")
    for content in (
        png[:33] + chunk * 20_000 + png[33:],
        jpeg[:2] + b"\xff\xe5\x00\x02" * 20_000 + jpeg[2:],
        gif[:place] + comment + gif[place:],
    ):
        with pytest.raises(UnreadableImage, match="pieces"):
            decode(content)
    assert decode(png[:33] + chunk * 500 + png[33:]).size == (40, 24)


def test_decoding_leaves_the_bytes_alone() -> None:
    content = encoded(gradient())
    decode(content)
    assert Image.open(io.BytesIO(content)).size == (40, 24)
