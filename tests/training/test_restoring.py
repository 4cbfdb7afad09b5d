"""Parts of the upscalers and the painter of holes: fixed layers, made-up degradations and holes, photographs."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from service import media
from training import backbone, metrics, restoring, upscaling
from training.data import Dataset, Split, drawn, load, masks, photos
from training.data.folder import splits
from training.data.pixels import to_floats, to_pixels
from training.layers import infer, spread
from training.problems import TrainingError
from training.recipes import context_encoder
from training.step import Step, annealed


def smooth(number: int, side: int) -> np.ndarray:
    """Pictures without overshoot, so that nothing is clipped on the way."""
    return np.random.default_rng(0).integers(90, 160, (number, side, side, 3), np.uint8)


def test_the_bicubic_layer_is_pillows() -> None:
    pictures = smooth(2, 24)
    ours = to_pixels(keras.ops.convert_to_numpy(upscaling.bicubic(keras.ops.convert_to_tensor(to_floats(pictures)))))
    difference = np.abs(ours.astype(int) - upscaling.enlarged(pictures))
    assert difference[:, 8:-8, 8:-8].max() <= 1  # Pillow rounds between its two passes
    assert difference.max() <= 8  # and at the edges it weighs what is there, where we go on with the last pixel


def test_an_untrained_upscaler_is_bicubic() -> None:
    pictures = smooth(2, 24)
    model = upscaling.network(24, 3, 8, 2)
    plain = keras.ops.convert_to_numpy(upscaling.bicubic(keras.ops.convert_to_tensor(to_floats(pictures))))
    assert np.allclose(infer(model, pictures, to_floats)[0], plain, atol=1e-6)


def test_a_checkerboard_is_what_repeats_in_every_small_pixel() -> None:
    large = to_floats(smooth(2, 24))
    pattern = np.random.default_rng(1).uniform(-0.1, 0.1, (4, 4, 3))
    pattern -= pattern.mean(axis=(0, 1))  # another colour all over is no pattern
    repeated = np.tile(pattern, (6, 6, 1)).astype(np.float32)
    once = np.zeros((24, 24, 3), np.float32)
    once[8:12, 8:12] = pattern

    def found(added: np.ndarray) -> float:
        return float(upscaling.checkerboard(keras.ops.convert_to_tensor(large + added), keras.ops.convert_to_tensor(large)))

    assert found(repeated) == pytest.approx(np.abs(pattern).mean(), rel=1e-3)
    assert found(repeated + 0.05) == pytest.approx(found(repeated), rel=1e-3)
    assert found(once) == pytest.approx(found(repeated) / 36, rel=1e-3)
    assert found(np.full((24, 24, 3), 0.05, np.float32)) < 1e-6


def test_averages_before_the_first_step_replace_nothing() -> None:
    model = upscaling.network(8, 3, 8, 1)
    step = Step(lambda x: (keras.ops.mean(model(x)), {}), model.trainable_variables, annealed(1e-3, 100))
    before = [keras.ops.convert_to_numpy(variable) for variable in model.trainable_variables]
    step.finish()
    after = [keras.ops.convert_to_numpy(variable) for variable in model.trainable_variables]
    assert all(np.array_equal(*both) for both in zip(before, after, strict=True))


def test_spread_puts_channels_side_by_side() -> None:
    channels = np.arange(8, dtype=np.float32).reshape(1, 1, 1, 8)
    assert keras.ops.convert_to_numpy(spread(channels, 2)).tolist() == [[[[0, 1], [2, 3]], [[4, 5], [6, 7]]]]


@pytest.mark.parametrize("degradation", ["clean", "real"])
def test_small_pictures_show_what_the_large_ones_do(degradation: upscaling.Degradation) -> None:
    level = np.random.default_rng(1).integers(0, 256, (6, 1, 1, 3), np.uint8)
    large = np.broadcast_to(level, (6, 64, 64, 3))
    small, wanted = upscaling.pairs(large, 32, degradation, np.random.default_rng(0))
    assert (small.shape, wanted.shape) == ((6, 8, 8, 3), (6, 32, 32, 3))
    assert np.abs(to_pixels(small).astype(int).mean(axis=(1, 2)) - to_pixels(wanted).mean(axis=(1, 2))).max() < 12
    again = upscaling.pairs(large, 32, degradation, np.random.default_rng(0))[0]
    assert np.array_equal(small, again)


def test_large_pictures_are_turned_with_their_small_ones() -> None:
    large = np.tile(np.arange(64, dtype=np.uint8)[None, :, None, None] * 3, (8, 1, 64, 3))
    small, wanted = upscaling.pairs(large, 64, "clean", np.random.default_rng(0))
    back = np.stack([upscaling.reduced(to_pixels(one)[None])[0] for one in wanted])
    assert np.array_equal(to_pixels(small), back)
    assert len({one.tobytes() for one in wanted}) > 2


@pytest.mark.parametrize("kind", masks.KINDS)
def test_holes_are_neither_empty_nor_all(kind: str) -> None:
    holes = masks.drawn(kind, 20, 64, np.random.default_rng(0))
    assert (holes.shape, holes.dtype) == ((20, 64, 64), bool)
    shares = holes.mean(axis=(1, 2))
    assert 0 < shares.min() <= shares.max() < 0.6
    assert np.array_equal(holes, masks.drawn(kind, 20, 64, np.random.default_rng(0)))


def test_the_painter_does_not_look_into_holes() -> None:
    random = np.random.default_rng(0)
    config = context_encoder.Config(width=8, blocks=2)
    for variant in (config, context_encoder.Config(variant="chapter", width=8, latent_dimension=16)):
        model = context_encoder.painter(32, 3, variant)
        pictures, holes = to_floats(smooth(2, 32)), masks.drawn("blocks", 2, 32, random)[..., None].astype(np.float32)
        changed = np.where(holes > 0, random.uniform(-1, 1, pictures.shape), pictures).astype(np.float32)
        assert np.array_equal(infer(model, [pictures, holes])[0], infer(model, [changed, holes])[0])


def test_holes_are_filled_from_their_edges() -> None:
    pictures, holes = np.full((3, 48, 48, 3), -0.5, np.float32), np.zeros((3, 48, 48, 1), np.float32)
    pictures[0], holes[0, 8:40, 8:40], holes[1, :, 24:], holes[2, 8:, 12:36] = 0.25, 1, 1, 1
    pictures[1, :, :12], pictures[2] = 0.5, np.linspace(-1, 1, 48)[:, None]
    given = np.where(holes, np.float32(0.9), pictures)
    made = keras.ops.convert_to_numpy(context_encoder.diffused(*map(keras.ops.convert_to_tensor, (given, holes))))
    assert np.allclose(made[0], 0.25, atol=2e-3)
    assert np.allclose(np.where(holes, 0, made), np.where(holes, 0, pictures), atol=2e-3)
    assert np.allclose(made[1, :, 24:], -0.5, atol=0.02)  # what lies at the edge, not beyond it
    assert np.allclose(made[2], pictures[2], atol=0.02)  # a slope goes on


def test_an_untrained_painter_learns_from_the_decibels_of_what_spreads_into_holes() -> None:
    config, random = context_encoder.Config(width=8, blocks=2), np.random.default_rng(2)
    paint = context_encoder.painter(32, 3, config)
    pictures, holes = random.uniform(-1, 1, (3, 32, 32, 3)).astype(np.float32), _squares(3, 32, 64, random)[..., None].astype(np.float32)
    pixel_loss, *_ = context_encoder._losses(paint, keras.Sequential(), None, config)
    value, scalars = pixel_loss(*map(keras.ops.convert_to_tensor, (pictures, holes)))
    spread_in = keras.ops.convert_to_numpy(context_encoder.diffused(*map(keras.ops.convert_to_tensor, (pictures, holes))))
    squares = [np.mean(np.square(a - b)[hole[..., 0] > 0]) for a, b, hole in zip(spread_in, pictures, holes, strict=True)]
    assert float(value) == pytest.approx(np.mean(np.log(np.array(squares) + context_encoder.FLOOR)), abs=1e-3)
    assert float(scalars["decibels"]) == pytest.approx(np.mean([10 * np.log10(4 / one) for one in squares]), abs=0.05)


def _squares(number: int, side: int, largest: int, random: np.random.Generator) -> np.ndarray:
    return masks.squares(masks.wholes(200, side, largest, random), number, side, random)


def test_holes_to_learn_from_are_of_all_kinds_and_as_in_larger_pictures() -> None:
    found = _squares(64, 32, 96, np.random.default_rng(0))
    shares = found.mean(axis=(1, 2))
    assert (found.shape, found.dtype) == ((64, 32, 32), bool)
    assert 0 < shares.min() < shares.max() < 0.6
    assert found.all(axis=2).any()  # a row that is all hole: no kind is as wide as its own picture
    assert np.array_equal(found, _squares(64, 32, 96, np.random.default_rng(0)))


def test_details_stay_and_colours_do_not_drift() -> None:
    small, random = to_floats(smooth(2, 36)), np.random.default_rng(1)
    plain = keras.ops.convert_to_numpy(upscaling.bicubic(keras.ops.convert_to_tensor(small)))
    detail = 0.1 * (np.indices(plain.shape).sum(axis=0) % 2 - 0.5).astype(np.float32)
    drifted = plain + detail + random.uniform(0.02, 0.05, (2, 1, 1, 3)).astype(np.float32)
    made = keras.ops.convert_to_numpy(upscaling.coloured(*map(keras.ops.convert_to_tensor, (drifted, small))))
    assert np.allclose(made, plain + detail, atol=1e-5)


def test_luma_is_that_of_bt601() -> None:
    colours = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0]], np.uint8)
    assert np.allclose(metrics.luma(colours), [16, 235, 81.481], atol=1e-2)


def test_photographs_of_ones_own_are_split_by_photograph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    for index in range(5):
        level = random.integers(0, 200, 3)
        rough = (level + random.integers(0, 55, (420, 600, 3))).astype(np.uint8)
        Image.fromarray(rough).save(tmp_path / f"{index}.png")
    for shade in range(20):  # wherever their digests lie
        Image.new("RGB", (600, 420), (shade, 0, 0)).save(tmp_path / f"flat-{shade}.png")
    Image.new("RGB", (200, 200)).save(tmp_path / "small.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "0.png").read_bytes()[:5000])
    for index in range(5):
        (tmp_path / f"{index}-again.png").write_bytes((tmp_path / f"{index}.png").read_bytes())
    data = load(f"photos:{tmp_path}")
    assert data.train.images.shape[1:] == data.validation.images.shape[1:] == (192, 192, 3)
    assert data.test.images.shape[1:] == (384, 384, 3)
    seen = [level for split in (data.train, data.validation, data.test) for level in _levels(split)]
    assert len(seen) == len(set(seen)) == 5
    told = capsys.readouterr().err
    assert [f"flat-{shade}.png is left out: it is flat" in told for shade in range(20)] == [True] * 20
    assert "cut.png is left out" in told


def test_of_many_photographs_there_are_fewer_squares_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    for index in range(6):
        Image.fromarray(random.integers(0, 255, (1200, 1200, 3), dtype=np.uint8)).save(tmp_path / f"{index}.bmp")
    whole = load(f"photos:{tmp_path}")
    monkeypatch.setattr(photos, "TOGETHER", {"train": 30, "validation": 5, "test": 3})
    some = load(f"photos:{tmp_path}")
    assert len(whole.train) > 30 >= len(some.train) > 15
    assert len(whole.validation) > 5 >= len(some.validation) >= 1
    assert len(whole.test) > 3 >= len(some.test) >= 1


def test_copies_are_held_out_together() -> None:
    for number in range(3, 9):
        digests = [hashlib.sha256(bytes([index])).hexdigest() for index in range(number)]
        parts = [splits(digests * 2, 0.0001, 0.0001), splits(digests, 0.0001, 0.0001)]
        for twice, once in zip(*parts, strict=True):
            assert once.any()
            assert twice.tolist() == [*once, *once]
    for digests in (["00000000", "fffffff0", "ffffffff"], ["00000000", "00000001", "ffffffff"]):  # by which none would be left to train on
        assert [part.sum() for part in splits(digests)] == [1, 1, 1]


def _levels(split: Split) -> set[tuple[int, ...]]:
    """The darkest colours of a split's pictures, roughly: each photograph has its own."""
    return {tuple((square.min(axis=(0, 1)) // 8).tolist()) for square in split.images}


def test_a_folder_without_large_photographs_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (200, 200)).save(tmp_path / "small.png")
    with pytest.raises(TrainingError, match="no 3 photographs of 384 x 384"):
        load(f"photos:{tmp_path}")
    with pytest.raises(TrainingError, match="no such folder"):
        load(f"photos:{tmp_path}/nowhere")


class Restoring:
    """Answers as a server would whose model restores pictures so."""

    model = "restoring"

    def __init__(self, restore: Callable[..., np.ndarray]) -> None:
        self.restore = restore

    async def shown(self, task: str, pictures: np.ndarray, *, encode: Callable[[np.ndarray], bytes] = media.encode) -> Any:
        uploaded = np.stack([upscaling.read(encode(picture)) for picture in pictures])
        return self.answers(self.restore(uploaded))

    async def filled(self, task: str, pictures: np.ndarray, holes: np.ndarray) -> Any:
        return self.answers(self.restore(pictures, holes))

    def answers(self, pictures: np.ndarray) -> Any:
        return [{"image": base64.b64encode(media.encode(picture)).decode()} for picture in pictures]


def textured(side: int) -> Dataset:
    """Two test pictures with waves and noise."""
    random, (rows, columns) = np.random.default_rng(0), np.indices((side, side))
    waves = [np.sin(rows / wave) + np.cos(columns / (wave + 3)) for wave in (3, 8)]
    levels = 120 + 40 * np.stack(waves)[..., None] + random.normal(0, 8, (2, side, side, 3))
    return dataclasses.replace(drawn.load(), test=Split(levels.clip(0, 255).astype(np.uint8), np.zeros(2, np.int32)))


def test_figures_of_an_upscaler(tmp_path: Path) -> None:
    data = textured(98)  # of which 96 are measured
    truth = data.test.images[:, :96, :96]

    def measured(restore: Callable[..., np.ndarray]) -> dict[str, Any]:
        return asyncio.run(restoring.measure_upscale(Restoring(restore), data, tmp_path))[0]  # type: ignore[arg-type]

    plain = measured(upscaling.enlarged)
    for upload in ("upscale", "upscale_jpeg"):
        for figure in ("psnr", "feature_distance"):
            value, reference, _ = plain[f"{upload}_{figure}"]
            assert value == pytest.approx(reference)
    assert plain["upscale_jpeg_psnr"][0] < plain["upscale_psnr"][0]
    assert plain["upscale_colour_shift"][0] == 0
    right = measured(lambda uploaded: truth)
    assert right["upscale_psnr"][0] > 80
    assert right["upscale_psnr"][1] == pytest.approx(plain["upscale_psnr"][1])
    assert right["upscale_feature_distance"][0] == pytest.approx(0, abs=1e-5)
    framed = truth.copy()
    framed[:, :4] = framed[:, :, -4:] = 0  # where nothing counts
    assert measured(lambda uploaded: framed)["upscale_psnr"][0] > 80


def test_figures_of_a_painter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "HOLED", 80)  # OpenCV takes its time
    data = textured(84)  # of which the middle is measured
    truth = data.test.images[:, 2:82, 2:82]

    def measured(restore: Callable[..., np.ndarray]) -> dict[str, Any]:
        return asyncio.run(restoring.measure_inpaint(Restoring(restore), data, tmp_path))[0]  # type: ignore[arg-type]

    plain = measured(lambda given, holes: np.stack([restoring.PEERS["fsr"](*pair) for pair in zip(given, holes, strict=True)]))
    for figure in ("inpaint_psnr", "inpaint_feature_distance", "inpaint_text_psnr", "inpaint_scratches_feature_distance"):
        value, reference, name = plain[figure]
        assert (value, name) == (pytest.approx(reference), "OpenCV's FSR, fast")
    assert plain["inpaint_centre_psnr"][2] == "OpenCV's Telea"
    off = measured(lambda given, holes: np.where(holes[..., None], np.clip(truth.astype(int) + 10, 0, 255), truth).astype(np.uint8))
    assert off["inpaint_psnr"][0] == pytest.approx(20 * np.log10(255 / 10), abs=0.2)  # in holes alone
    with pytest.raises(TrainingError, match="values outside of holes"):
        measured(lambda given, holes: truth + np.uint8(1))


def test_grey_pictures_are_no_measure(tmp_path: Path) -> None:
    whole = textured(96)
    grey = dataclasses.replace(whole, test=Split(whole.test.images[..., :1], whole.test.labels))
    with pytest.raises(TrainingError, match="is grey"):
        asyncio.run(restoring.measure_upscale(Restoring(upscaling.enlarged), grey, tmp_path))  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "builder", "number", "width"), [("vgg19", "VGG19", 16, 512), ("inception_v3", "InceptionV3", 11, 2048)])
def test_other_backbones(monkeypatch: pytest.MonkeyPatch, name: backbone.Name, builder: str, number: int, width: int) -> None:
    build = getattr(keras.applications, builder)

    def untrained(weights: str, **options: Any) -> Any:
        assert weights == "imagenet"
        return build(weights=None, **options)

    monkeypatch.setattr(keras.applications, builder, untrained)
    pictures = np.zeros((1, 96, 96, 3), np.float32)
    maps = backbone.maps(name, 96)(pictures)
    assert len(maps) == number
    assert all(one.shape[0] == 1 and one.shape[1] <= 96 for one in maps)
    assert backbone.embedder(name, 96)(pictures)["embedding"].shape == (1, width)

    with pytest.raises(TrainingError, match=rf"--backbone {name}: it takes pictures of \d\d x \d\d pixels or more, not of 24 x 24"):
        backbone.maps(name, 24)

    def unreachable(**options: Any) -> Any:
        raise OSError("no connection")

    monkeypatch.setattr(keras.applications, builder, unreachable)
    with pytest.raises(TrainingError, match=rf"--backbone {name}: its weights cannot be had \(no connection\)"):
        backbone.maps(name, 96)
