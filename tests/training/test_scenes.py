"""Sources with captions, on small fixtures in the layout of the real ones."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import combinations, pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from training import data
from training.data import Dataset, Split, Thing, captions, coco, photos, phrases, scenes, stamps
from training.problems import TrainingError

HERE = Path(__file__).parent
LABELS = list(phrases.objects().values())
MARGIN = (9, 5, 12, 20)
"""Clear columns and rows around a thing: to the left, above, to the right, below."""


def colour(index: int) -> tuple[int, int, int]:
    """One of 343 that are 40 levels apart."""
    return index % 7 * 40, index // 7 % 7 * 40, index // 49 * 40


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A package of emoji, each a rectangle of one colour, and packages of photographs, each of one colour."""
    folder = tmp_path_factory.mktemp("scenes")
    drawings = folder / "node_modules" / "emoji-datasource-google" / "img" / "google" / "64"
    drawings.mkdir(parents=True)
    left, above, right, below = MARGIN
    for index, code in enumerate(phrases.objects()):
        picture = Image.new("RGBA", (64, 64))
        picture.paste((*colour(index), 255), (left, above, 64 - right, 64 - below))
        picture.save(drawings / f"{code}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photos, "BACKGROUNDS", folder / "backgrounds")
        patch.setattr(photos, "WALLPAPERS", folder / "wallpapers")
        files = [photos.BACKGROUNDS / f"{name}.jpg" for name in photos.LOMIRI]
        files += [photos.BACKGROUNDS / "mate" / "nature" / f"{name}.jpg" for name in photos.MATE]
        files += [photos.WALLPAPERS / name / "contents" / "images" / "2560x1600.jpg" for name in photos.PLASMA]
        for index, file in enumerate(files):
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (900, 700), shade(index)).save(file, "PNG")
        patch.setattr(scenes, "NUMBERS", {"train": 240, "validation": 40, "test": 40})
        yield folder


def shade(photograph: int) -> tuple[int, int, int]:
    return 7 * photograph + 20, 250 - 7 * photograph, 77


@pytest.fixture(scope="module")
def composed(made: Path) -> Dataset:
    return scenes.load(made)


def splits(dataset: Dataset) -> tuple[Split, Split, Split]:
    return dataset.train, dataset.validation, dataset.test


def labels(things: tuple[Thing, ...]) -> list[str]:
    return [thing.label for thing in things]


def grounds(split: Split) -> list[tuple[int, ...]]:
    """The colour that each picture mostly has, of every fourth pixel."""
    packed = split.images[:, ::4, ::4].astype(np.int64) @ [1 << 16, 1 << 8, 1]
    most = [values[counts.argmax()] for values, counts in (np.unique(picture, return_counts=True) for picture in packed)]
    return [(int(value) >> 16, int(value) >> 8 & 255, int(value) & 255) for value in most]


def test_the_same_scenes_are_composed_every_time(composed: Dataset, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [len(split) for split in splits(composed)] == [240, 40, 40]
    assert (composed.shape, composed.fit.mode) == ((192, 192, 3), "stretch")
    assert not composed.train.labels.any()
    monkeypatch.setattr(scenes, "NUMBERS", {"train": 20, "validation": 10, "test": 10})
    fewer = data.load(f"scenes:{made}")
    assert np.array_equal(fewer.train.images, composed.train.images[:20])
    assert fewer.train.captions == composed.train.captions[:20]
    assert fewer.train.objects == composed.train.objects[:20]
    assert fewer.source == composed.source == "scenes"
    pictures = [picture.tobytes() for split in splits(composed) for picture in split.images]
    assert len(set(pictures)) == len(pictures)


def test_pairs_of_labels_come_together_in_one_split(composed: Dataset) -> None:
    for name, split in zip(scenes.NUMBERS, splits(composed), strict=True):
        pairs = {pair for things in split.objects for pair in combinations(labels(things), 2)}
        assert {scenes.split_of(one, other) for one, other in pairs if one != other} == {name}
        assert {scenes.split_of(one, other) for one, other in pairs if one == other} - {name}, "two of any one kind come in all splits"
        assert {len(things) for things in split.objects} == {1, 2, 3}
        assert {len(set(labels(things))) for things in split.objects} == {1, 2, 3}
    seen = {label for things in composed.train.objects for label in labels(things)}
    assert len(seen) > 150
    shares = Counter(scenes.split_of(*pair) for pair in combinations(LABELS, 2))
    assert shares["test"] / shares.total() == pytest.approx(0.15, abs=0.01)
    assert shares["validation"] / shares.total() == pytest.approx(0.05, abs=0.01)
    assert scenes.split_of("cat", "dog") == scenes.split_of("dog", "cat")


def test_photographs_lie_in_one_split(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "GROUNDS", {"photo": 1.0})
    monkeypatch.setattr(scenes, "NUMBERS", {"train": 60, "validation": 20, "test": 20})
    assert len(set(grounds(scenes.load(made).train))) > 30, "in training each comes in other colours every time"
    monkeypatch.setattr(scenes, "BENT", 0.0)
    names = [*photos.LOMIRI, *photos.MATE, *photos.PLASMA]
    held = {name: split for split, some in photos.HELD_OUT.items() for name in some}
    for split, found in zip(scenes.NUMBERS, splits(scenes.load(made)), strict=True):
        assert set(grounds(found)) <= {shade(index) for index, name in enumerate(names) if held.get(name, "train") == split}
        assert len(set(grounds(found))) > 1


def test_photographs_without_things_are_those_of_the_test_split(composed: Dataset, made: Path) -> None:
    assert composed.empty is not None
    assert composed.empty.shape == (scenes.EMPTY, scenes.SIDE, scenes.SIDE, 3)
    names = [*photos.LOMIRI, *photos.MATE, *photos.PLASMA]
    held = {shade(index) for index, name in enumerate(names) if name in photos.HELD_OUT["test"]}
    assert {tuple(colour) for picture in composed.empty for colour in picture.reshape(-1, 3)[::997].tolist()} == held


def test_colours_and_directions_lie_in_one_split(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for ranges in (scenes.SHADES, scenes.DIRECTIONS):
        edges = sorted((first, last, split) for split, some in ranges.items() for first, last in some)
        assert all(last < first or split == other for (_, last, split), (first, _, other) in pairwise(edges))
    monkeypatch.setattr(scenes, "GROUNDS", {"plain": 1.0})
    monkeypatch.setattr(scenes, "NUMBERS", {"train": 80, "validation": 40, "test": 40})
    plain = [set(grounds(split)) for split in splits(scenes.load(made))]
    assert not any(one & other for one, other in combinations(plain, 2))


def test_boxes_just_hold_what_is_drawn(composed: Dataset) -> None:
    shares = []
    for picture, things in zip(composed.train.images, composed.train.objects, strict=True):
        for thing in things:
            x, y, width, height = thing.box
            assert min(x, y) >= 0
            assert max(x + width, y + height) <= scenes.SIDE
            wanted = np.array(colour(LABELS.index(thing.label)))
            inside = np.abs(picture[y : y + height, x : x + width].astype(int) - wanted).max(axis=2) <= 1
            shares.append(inside[1:-1, 1:-1].mean())
            assert shares[-1] > 1 - 2 * scenes.OVERLAP - 0.02
            assert width / height == pytest.approx((64 - MARGIN[0] - MARGIN[2]) / (64 - MARGIN[1] - MARGIN[3]), rel=0.05)
            assert 0.28 * scenes.SIDE - 1 <= max(width, height) <= 0.55 * scenes.SIDE + 1
    assert np.mean(shares) > 0.99


def named_ground(caption: str) -> str | None:
    found = re.search(r"an? (\w+) background", caption)
    return found[1] if found else None


@pytest.mark.parametrize("source", ["scenes", "drawn-scenes"])
def test_captions_are_true_by_the_boxes(source: str, composed: Dataset) -> None:
    dataset = composed if source == "scenes" else data.load(source)
    side, stated, placed = dataset.fit.width, 0, 0
    for split in splits(dataset):
        for some, things in zip(split.captions, split.objects, strict=True):
            assert len(set(some)) == len(some) == 5
            assert len({named_ground(caption) for caption in some} - {None}) <= 1
            boxes = {label: [thing.box for thing in things if thing.label == label] for label in labels(things)}
            for caption in some:
                assert caption == " ".join(caption.split()).lower()
                assert not caption.endswith(".")
                assert Counter(phrases.mentioned(caption)) == Counter(labels(things)), caption
                for one, way, other in phrases.relations(caption):
                    assert all(phrases.holds(a, way, b) for a, b in product(boxes[one], boxes[other])), caption
                    stated += 1
                if len(boxes) == 1 and (place := re.search("on the left|in the middle|on the right", caption)):
                    across = [phrases.centre(thing.box)[0] / side for thing in things]
                    low, high = {"on the left": (0, 0.4), "in the middle": (0.4, 0.6), "on the right": (0.6, 1)}[place[0]]
                    assert low < min(across) <= max(across) < high, caption
                    placed += 1
    assert stated > 100
    assert placed > 20


def test_lists_go_from_left_to_right(composed: Dataset) -> None:
    listed = 0
    for some, things in zip(composed.train.captions, composed.train.objects, strict=True):
        across = {thing.label: phrases.centre(thing.box)[0] for thing in things}
        for caption in some:
            if len(across) == len(things) == 3 and re.fullmatch(r"a picture of [^,]*, [^,]* and [^,]*", caption):
                order = [across[label] for label in phrases.mentioned(caption)]
                assert order == sorted(order)
                listed += 1
    assert listed > 10


def test_all_frames_occur() -> None:
    assert len(phrases.FRAMES) >= 40
    random, said = np.random.default_rng(0), set[str]()
    for kinds in ("cat", "cat cat", "cat dog", "cat cat dog", "cat dog pig") * 400:
        boxes = scenes.placed([(20, 20)] * len(kinds.split()), 100, random)
        assert boxes is not None
        things = [Thing(label, box) for label, box in zip(kinds.split(), boxes, strict=True)]
        said |= {*phrases.captions(things, "a red background", 100, random)}
    for frame in phrases.FRAMES:
        pattern = re.compile(re.sub(r"\\\{\w+\\\}", ".+", re.escape(frame)))
        assert any(pattern.fullmatch(caption) for caption in said), frame


def test_colours_are_called_what_they_are(composed: Dataset) -> None:
    called = Counter(filter(None, map(named_ground, (caption for some in composed.train.captions for caption in some))))
    assert called.keys() <= scenes.COLOURS.keys() | {"gradient", "photo"}
    assert len(called) > 10
    for most, some in zip(grounds(composed.train), composed.train.captions, strict=True):
        for name in filter(None, map(named_ground, some)):
            if name in scenes.COLOURS:
                dark, light = np.sort(scenes.COLOURS[name], axis=0)
                assert ((dark <= most) & (most <= light)).all(), some


def test_all_labels_have_the_right_articles_and_plurals() -> None:
    """The list was read by a person."""
    lines = [line.split(", ") for line in (HERE / "nouns.txt").read_text().splitlines()]
    assert [[phrases.phrase(label), phrases.phrase(label, 2)] for label in LABELS] == lines
    for label in LABELS:
        for number in (1, 2, 3) if phrases.countable(label) else (1,):
            assert phrases.mentioned(phrases.phrase(label, number)) == [label] * number


@pytest.mark.parametrize(
    ("caption", "mentioned", "relations"),
    [
        ("a hot dog and a dog", ["hot dog", "dog"], []),
        ("two mice, some scissors and a police car", ["mouse", "mouse", "scissors", "police car"], []),
        ("some wine glasses", ["wine glass"], []),
        ("an owl is to the left of two foxes", ["owl", "fox", "fox"], [("owl", "to the left of", "fox")]),
        ("below a cat there are two dogs", ["cat", "dog", "dog"], [("dog", "below", "cat")]),
        ("a cat above a dog above a pig", ["cat", "dog", "pig"], [("cat", "above", "dog"), ("dog", "above", "pig")]),
        ("a pig on the right and a cow on the left", ["pig", "cow"], [("cow", "to the left of", "pig")]),
        ("on the left is a cow and on the right is a pig", ["cow", "pig"], [("cow", "to the left of", "pig")]),
        ("from left to right an ant and a bee", ["ant"], []),
        ("a cat and a dog from left to right", ["cat", "dog"], [("cat", "to the left of", "dog")]),
        ("a cat and a dog above a pig", ["cat", "dog", "pig"], [("dog", "above", "pig")]),
        ("a snail on the left of the picture", ["snail"], []),
        ("a blue square below a red disc", ["blue square", "red disc"], [("blue square", "below", "red disc")]),
        ("to the left of", [], []),
        ("", [], []),
    ],
)
def test_captions_are_read_back(caption: str, mentioned: list[str], relations: list[tuple[str, str, str]]) -> None:
    assert phrases.mentioned(caption) == mentioned
    assert phrases.relations(caption) == relations


def test_relations_are_said_only_where_they_are_plain() -> None:
    first = (10, 50, 20, 20)
    assert phrases.relation([first], [(60, 55, 20, 20)]) == "to the left of"
    assert phrases.relation([first], [(5, 5, 20, 20)]) == "below"
    assert phrases.relation([first], [(60, 95, 20, 20)]) is None
    assert phrases.relation([first], [(20, 52, 20, 20)]) is None
    assert phrases.relation([first, (10, 0, 20, 20)], [(60, 55, 20, 20)]) is None


def test_what_is_missing_for_scenes_is_named(made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"1f412\.png cannot be read .*npm install emoji-datasource-google"):
        data.load(f"scenes:{tmp_path}")
    monkeypatch.setattr(photos, "BACKGROUNDS", tmp_path)
    with pytest.raises(TrainingError, match=r"cannot be read .*: apt install lomiri-wallpapers-16\.04 .*plasma-workspace-wallpapers\.$"):
        data.load(f"scenes:{made}")


def test_drawn_scenes_need_nothing_and_are_the_same() -> None:
    one, other = data.load("drawn-scenes"), data.load("drawn-scenes")
    assert (one.shape, [len(split) for split in splits(one)]) == ((64, 64, 3), [192, 64, 64])
    assert one.fingerprint == other.fingerprint
    assert one.train.captions == other.train.captions


def test_a_fingerprint_covers_captions() -> None:
    dataset = data.load("drawn-scenes")
    changed = dataclasses.replace(dataset.train, captions=(("a lie",), *dataset.train.captions[1:]))
    assert dataclasses.replace(dataset, train=changed).fingerprint != dataset.fingerprint


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A file of twenty captioned pictures."""
    (tmp_path / "pictures").mkdir()
    lines = []
    for index in range(20):
        Image.new("RGB", (60, 40), (10 * index, 0, 200)).save(tmp_path / "pictures" / f"{index}.png")
        lines.append(json.dumps({"image": f"pictures/{index}.png", "captions": [f"A picture: number {index}.", "It\u2019s  BLUE!"]}))
    (tmp_path / "own.jsonl").write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    return tmp_path / "own.jsonl"


def test_own_pictures_and_captions_are_read(own: Path) -> None:
    found = data.load(f"captions:{own}")
    assert sum(map(len, splits(found))) == 20
    assert all(map(len, splits(found)))
    assert (found.shape, found.license, found.source) == ((192, 192, 3), "the owner's", f"captions:{own}")
    for split in splits(found):
        for picture, name, some in zip(split.images, split.names, split.captions, strict=True):
            index = int(Path(name).stem)
            assert some == (f"a picture number {index}", "it's blue")
            assert tuple(picture[96, 96]) == (10 * index, 0, 200)
            assert (picture == picture[96, 96]).all()  # shown whole, although it is broader than high


@pytest.mark.parametrize("between", ["\u2028", "\u0085"])
def test_lines_end_where_json_lines_do(own: Path, between: str) -> None:
    """A line separator within a string belongs to it, and a byte order mark to no line."""
    lines = [json.loads(line) for line in own.read_text(encoding="utf-8").splitlines() if line]
    for line in lines:
        line["captions"] = [f"one{between}sentence"]
    own.write_text("\r\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8-sig", newline="")
    found = data.load(f"captions:{own}")
    assert sum(map(len, splits(found))) == 20
    assert {caption for split in splits(found) for some in split.captions for caption in some} == {"one sentence"}


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("A well-lit room; 3.5 m_high!", "a well-lit room 3 5 m high"),
        ("-It's 'red'-", "it's red"),
        ("Cafe\u0301 CAFE\u0301", "caf\u00e9 caf\u00e9"),
        ("हिन्दी में।", "हिन्दी में"),
        ("க்ஷ தமிழ்", "க்ஷ தமிழ்"),
        ("क्\u200dष", "क्\u200dष"),
        ("I \u2764\ufe0f \U0001f469\u200d\U0001f680 it", "i it"),
        ("\u0301", ""),
    ],
)
def test_captions_are_cleaned_in_any_script(sentence: str, words: str) -> None:
    assert captions.cleaned(sentence) == words
    assert captions.cleaned(words) == words


def test_pictures_that_are_all_the_same_are_refused(own: Path) -> None:
    for picture in (own.parent / "pictures").iterdir():
        picture.write_bytes((own.parent / "pictures" / "0.png").read_bytes())
    with pytest.raises(TrainingError, match="Of 20 pictures too many have the same content"):
        data.load(f"captions:{own}")


def test_bad_lines_are_named_and_left_out(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = [
        "{",
        "[]",
        '{"image": 3, "captions": ["a"]}',
        '{"image": "pictures/0.png", "captions": ["?"]}',
        '{"image": "x.png", "captions": ["a"]}',
    ]
    own.write_text("\n".join([*bad, '{"image": "own.jsonl", "captions": ["a"]}', *own.read_text().splitlines()]))
    assert sum(map(len, splits(data.load(f"captions:{own}")))) == 20
    told = capsys.readouterr().err.splitlines()
    assert [int(line.split(", line ")[1].split()[0]) for line in told] == [1, 2, 3, 4, 5, 6]
    for line, said in zip(told, ("Expecting", '{"image":', '{"image":', "no captions", "No such file", "not a picture"), strict=True):
        assert said in line
    own.write_text("\n".join(own.read_text().splitlines()[:13]))
    with pytest.raises(TrainingError, match="7 pictures with captions; at least 8"):
        data.load(f"captions:{own}")
    with pytest.raises(TrainingError, match=r"none\.jsonl cannot be read \(No such file"):
        data.load(f"captions:{own.with_name('none.jsonl')}")


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """COCO's two folders, with six and eight pictures."""
    monkeypatch.setenv("ATELIER_CACHE", str(tmp_path / "cache"))
    for place, first, number in (("train2014", 0, 6), ("val2014", 6, 8)):
        (tmp_path / place).mkdir()
        for index in range(first, first + number):
            Image.new("RGB", (64, 48), (0, 10 * index, 99)).save(tmp_path / place / f"{index}.jpg", quality=95)
    return tmp_path


def levels(split: Split) -> list[int]:
    """The numbers of COCO's pictures in a split."""
    return [round(int(picture[96, 96, 1]) / 10) for picture in split.images]


def karpathy(path: Path) -> None:
    entries: list[dict[str, Any]] = []
    for index, split in enumerate(("train",) * 6 + ("restval",) * 4 + ("val", "test") * 2):
        sentences = [{"raw": f"A man; number {index}.", "tokens": []}, {"raw": "Two   dogs", "tokens": []}]
        place = "train2014" if index < 6 else "val2014"
        entries.append({"filename": f"{index}.jpg", "filepath": place, "split": split, "sentences": sentences})
    (path / "dataset_coco.json").write_text(json.dumps({"images": entries}))


def official(path: Path) -> None:
    (path / "annotations").mkdir()
    for name, numbers in (("train2014", range(6)), ("val2014", range(6, 14))):
        listed = {"images": [{"id": number, "file_name": f"{number}.jpg"} for number in numbers]}
        said = [{"image_id": number, "caption": f"A man, number {number}!"} for number in numbers] * 2
        (path / "annotations" / f"captions_{name}.json").write_text(json.dumps(listed | {"annotations": said}))


def test_coco_is_read_in_karpathys_splits(photographs: Path) -> None:
    karpathy(photographs)
    found = data.load(f"coco:{photographs}")
    assert [levels(split) for split in splits(found)] == [[*range(10)], [10, 12], [11, 13]]
    assert found.validation.captions == tuple((f"a man number {index}", "two dogs") for index in (10, 12))
    assert isinstance(found.train.images, np.memmap)
    assert found.fingerprint == data.load(f"coco:{photographs}").fingerprint
    kept = list((photographs / "cache" / "coco").iterdir())
    assert [file.suffix for file in kept] == [".npy"]
    written = kept[0].stat().st_mtime_ns
    data.load(f"coco:{photographs}")
    assert kept[0].stat().st_mtime_ns == written


def test_coco_is_read_as_it_is_published(photographs: Path) -> None:
    official(photographs)
    found = data.load(f"coco:{photographs}")
    assert [levels(split) for split in splits(found)] == [[*range(6)], [6, 8, 10, 12], [7, 9, 11, 13]]
    assert found.test.captions[0] == ("a man number 7",) * 2


@pytest.mark.parametrize("published", [karpathy, official])
def test_a_picture_of_coco_without_captions_is_left_out(photographs: Path, published: Callable[[Path], None]) -> None:
    published(photographs)
    for file in (photographs / coco.KARPATHY, photographs / "annotations" / "captions_val2014.json"):
        if file.exists():
            listed = json.loads(file.read_text())
            for picture in listed["images"]:
                if picture.get("filename") == "13.jpg":
                    picture["sentences"] = [{"raw": "!"}]
            listed["annotations"] = [one for one in listed.get("annotations", []) if one["image_id"] != 13]
            file.write_text(json.dumps(listed))
    found = data.load(f"coco:{photographs}")
    assert 13 not in levels(found.test)
    assert all(some for split in splits(found) for some in split.captions)


def test_what_is_missing_of_coco_is_named(photographs: Path) -> None:
    with pytest.raises(TrainingError, match=r"captions_train2014\.json.*unpack train2014\.zip"):
        data.load(f"coco:{photographs}")
    (photographs / coco.KARPATHY).write_text('{"images": [{}]}')
    with pytest.raises(TrainingError, match=r"sentences.*unpack train2014\.zip"):
        data.load(f"coco:{photographs}")
    karpathy(photographs)
    (photographs / "val2014" / "13.jpg").write_bytes(b"")
    with pytest.raises(TrainingError, match=r"13\.jpg cannot be read \(the picture is empty\)"):
        data.load(f"coco:{photographs}")
    (photographs / "val2014" / "13.jpg").unlink()
    with pytest.raises(TrainingError, match=r"13\.jpg cannot be read \(No such file"):
        data.load(f"coco:{photographs}")


@pytest.fixture
def folder_of_stamps(tmp_path: Path) -> Path:
    """Forty stamps, two of them twins, and what has to be left out."""
    texts = {f"food/{index}": f"A {'very ' * index}big apple." for index in range(40)}
    texts |= {"animals/birds/owl": "An owl.", "symbols/a": "A letter.", "food/eat": "Eat your bread!", "animals/insects/bee": "A bee."}
    for index, (name, text) in enumerate(texts.items()):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.txt").write_text(f"{text}\nde.utf8=Ein Ding.\n", encoding="utf-8")
        Image.new("RGBA", (30, 50), (index, 0, 0, 255)).save(tmp_path / f"{name}.png")
    for name in ("food/7_mirror.png", "animals/birds/owl_mirror.png", "food/no-text.png"):
        Image.new("RGBA", (30, 50), (90, 0, 0, 255)).save(tmp_path / name)
    (tmp_path / "animals" / "insects" / "bee.svg").write_text("<svg/>")
    return tmp_path


def test_stamps_are_read_and_twins_stay_together(folder_of_stamps: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = data.load(f"stamps:{folder_of_stamps}")
    names = [name for split in splits(found) for name in split.names]
    assert sorted(names) == sorted(["food/7_mirror.png", *(f"food/{index}.png" for index in range(40))])
    assert sum("food/7.png" in split.names for split in splits(found)) == 1
    assert all(("food/7.png" in split.names) == ("food/7_mirror.png" in split.names) for split in splits(found))
    assert len(found.train) > len(found.test) > 0 < len(found.validation)
    assert (found.train.images[:, 96, 0] == 255).all()  # on white
    assert "1 stamps are left out, for their texts name nothing, such as: Eat your bread!" in capsys.readouterr().err
    for split in splits(found):
        for name, some in zip(split.names, split.captions, strict=True):
            assert some == (f"a {'very ' * int(Path(name).stem.removesuffix('_mirror'))}big apple",)


def test_reserved_stamps_are_left_out_everywhere() -> None:
    assert len(stamps.reserved()) == 60
    assert {"animals/birds/owl", "seasonal/candle"} <= stamps.reserved()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("A peacock (a male peafowl).", "a peacock"),
        ("Circus tent.", "a circus tent"),
        ("Confetti.", "some confetti"),
        ("A candy cane is a traditional Christmas treat in the United States.", "a candy cane"),
        ("The caboose—a carriage for the guard.", "the caboose"),
        ("A “Fuji” apple.", "a fuji apple"),
        ("A Jack-o\u2019-lantern.", "a jack-o'-lantern"),
        ("A ripe, red tomato!", "a ripe red tomato"),
        ("An hippopotamus.", "a hippopotamus"),
        ("Boom!!!", None),
        ("", None),
    ],
)
def test_what_a_stamp_is_called(text: str, name: str | None) -> None:
    assert stamps.named(text) == name


def test_a_folder_without_stamps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"0 stamps with a name; at least 8 .*apt install tuxpaint-stamps-default"):
        data.load(f"stamps:{tmp_path}")
