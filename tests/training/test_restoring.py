"""Parts of the upscalers and the painter of holes: fixed layers, made-up degradations and holes, photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from training import backbone, metrics, upscaling
from training.data import Split, load, masks
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


def test_means_of_what_is_around_fill_holes() -> None:
    pictures, holes = np.full((2, 48, 48, 3), -0.5, np.float32), np.zeros((2, 48, 48, 1), np.float32)
    pictures[0], holes[0, 8:40, 8:40], holes[1, :, 24:] = 0.25, 1, 1
    pictures[1, :, :12] = 0.5
    given = np.where(holes, np.float32(0.9), pictures)
    made = keras.ops.convert_to_numpy(context_encoder.diffused(*map(keras.ops.convert_to_tensor, (given, holes))))
    assert np.allclose(made[0], 0.25, atol=2e-3)
    assert np.allclose(np.where(holes, 0, made), np.where(holes, 0, pictures), atol=2e-3)
    assert np.allclose(made[1, :, 24], -0.5, atol=0.1)  # near the edge, what lies there
    assert -0.3 < made[1, 24, 47, 0] < 0.3  # far from it, the mean of all


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


def test_photographs_of_ones_own_are_split_by_photograph(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for index in range(5):
        level = random.integers(0, 200, 3)
        rough = (level + random.integers(0, 55, (420, 600, 3))).astype(np.uint8)
        Image.fromarray(rough).save(tmp_path / f"{index}.png")
    Image.fromarray(np.zeros((420, 600, 3), np.uint8)).save(tmp_path / "flat.png")
    Image.new("RGB", (200, 200)).save(tmp_path / "small.png")
    data = load(f"photos:{tmp_path}")
    assert data.train.images.shape[1:] == data.validation.images.shape[1:] == (192, 192, 3)
    assert data.test.images.shape[1:] == (384, 384, 3)
    seen = [level for split in (data.train, data.validation, data.test) for level in _levels(split)]
    assert len(seen) == len(set(seen)) == 5


def _levels(split: Split) -> set[tuple[int, ...]]:
    """The darkest colours of a split's pictures, roughly: each photograph has its own."""
    return {tuple((square.min(axis=(0, 1)) // 8).tolist()) for square in split.images}


def test_a_folder_without_large_photographs_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (200, 200)).save(tmp_path / "small.png")
    with pytest.raises(TrainingError, match="no photographs of 384 x 384"):
        load(f"photos:{tmp_path}")
    with pytest.raises(TrainingError, match="no such folder"):
        load(f"photos:{tmp_path}/nowhere")


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

    def unreachable(**options: Any) -> Any:
        raise OSError("no connection")

    monkeypatch.setattr(keras.applications, builder, unreachable)
    with pytest.raises(TrainingError, match=rf"--backbone {name}: its weights cannot be had \(no connection\)"):
        backbone.maps(name, 96)
