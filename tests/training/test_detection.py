"""Detectors of anomalies: folders of parts, thresholds that mean what they say, and from a folder to an endpoint."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from support import ROOT, Server, encoded

from service.contract.manifest import Fit, read
from training import data, detecting, detection, forging, metrics, one_class
from training.__main__ import main
from training.data import defects, folder, parts, textures
from training.job import Job
from training.problems import TrainingError
from training.recipes import padim, skip_ganomaly


def plate(seed: int, scratched: bool = False, size: tuple[int, int] = (90, 60)) -> Image.Image:
    """A noisy plate with a disc; a dark scratch across it, if so."""
    random = np.random.default_rng(seed)
    picture = Image.fromarray(random.integers(110, 130, (size[1], size[0], 3), np.uint8))
    draw = ImageDraw.Draw(picture)
    draw.ellipse([20, 15, 60, 45], fill=(190, 180, 60))
    if scratched:
        draw.line([25, 20 + seed % 10, 55, 40], fill=(20, 20, 20), width=3)
    return picture


def scratch_mask(seed: int) -> Image.Image:
    mask = Image.new("L", (90, 60))
    ImageDraw.Draw(mask).line([25, 20 + seed % 10, 55, 40], fill=255, width=3)
    return mask


@pytest.fixture
def good(tmp_path: Path) -> Path:
    folder = tmp_path / "good"
    folder.mkdir()
    for index in range(20):
        plate(index).save(folder / f"{index:02}.png")
    return folder


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    """MVTec AD's layout: train/good, test/good, test/scratch, ground_truth/scratch."""
    folder = tmp_path / "plates"
    for name in ("train/good", "test/good", "test/scratch", "ground_truth/scratch"):
        (folder / name).mkdir(parents=True)
    for index in range(12):
        plate(index).save(folder / "train" / "good" / f"{index:03}.png")
    for index in range(4):
        plate(50 + index).save(folder / "test" / "good" / f"{index:03}.png")
        plate(60 + index, scratched=True).save(folder / "test" / "scratch" / f"{index:03}.png")
        scratch_mask(60 + index).save(folder / "ground_truth" / "scratch" / f"{index:03}_mask.png")
    return folder


def test_a_folder_of_good_parts_is_split(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (good / "notes.txt").write_text("no picture")
    (good / "broken.png").write_bytes(b"nothing")
    (good / ".DS_Store").write_bytes(b"of a file manager")
    plate(99, size=(60, 90)).save(good / "turned.png")
    plate(98, size=(92, 60)).save(good / "hardly-wider.png")
    found = data.load(f"parts:{good}", 32, 3)
    assert sum(len(split) for split in (found.train, found.validation, found.test)) == 22
    assert all(len(split) for split in (found.train, found.validation, found.test))
    assert (found.classes, found.fit.mode, found.shape) == (("good",), "stretch", (32, 32, 3))
    assert len(found.train.names) == len(found.train)
    told = capsys.readouterr().err
    assert "broken.png is left out" in told
    assert "1 files are no pictures and are left out, such as notes.txt" in told
    assert "1 pictures have other proportions than the usual 90 x 60, such as turned.png" in told


def test_a_fifth_sets_thresholds_and_a_tenth_serves_figures() -> None:
    digests = [hashlib.sha256(bytes([index // 256, index % 256])).hexdigest() for index in range(4000)]
    shares = [mask.mean() for mask in folder.splits(digests, parts.VALIDATION, parts.TEST)]
    assert shares == pytest.approx([0.7, 0.2, 0.1], abs=0.02)


def test_the_layout_of_mvtec_is_understood(mvtec: Path) -> None:
    found = data.load(f"parts:{mvtec}", 60, 1)
    assert found.classes == ("good", "scratch")
    assert (len(found.train) + len(found.validation), len(found.test)) == (12, 8)
    assert not found.train.labels.any()
    assert found.test.labels.tolist() == [0] * 4 + [1] * 4
    assert found.test.masks is not None
    assert not found.test.masks[:4].any()
    assert found.test.masks[4:].any(axis=(1, 2)).all()
    dark = found.test.images[4:, ..., 0] < 60
    assert (dark & found.test.masks[4:]).sum() > 0.9 * dark.sum()


def test_bad_parts_may_lie_beside_good_ones(good: Path) -> None:
    bad = good.parent / "bad"
    bad.mkdir()
    for index in range(3):
        plate(index, scratched=True).save(bad / f"{index}.png")
    found = data.load(f"parts:{good.parent}", 32, 3)
    assert (found.classes, found.test.masks) == (("good", "bad"), None)
    assert (found.test.labels == 1).sum() == 3
    assert sum((split.labels == 0).sum() for split in (found.train, found.validation, found.test)) == 20


def test_a_folder_that_does_not_say_which_are_good_is_told_of(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data.load(f"parts:{good}", 32, 3)
    assert "taken for good" not in capsys.readouterr().err
    (good.parent / "NG").mkdir()
    plate(0, scratched=True).save(good.parent / "NG" / "0.png")
    good.rename(good.parent / "OK")
    assert data.load(f"parts:{good.parent}", 32, 3).classes == ("good",)
    assert "has no folder good: all pictures are taken for good ones, also those in NG, OK" in capsys.readouterr().err


def test_masks_that_do_not_fit_are_named(mvtec: Path) -> None:
    mask = mvtec / "ground_truth" / "scratch" / "002_mask.png"
    Image.new("L", (9, 9)).save(mask)
    with pytest.raises(TrainingError, match=r"002_mask\.png is 9 x 9, .*002\.png is 90 x 60"):
        data.load(f"parts:{mvtec}", 32, 3)
    mask.unlink()
    with pytest.raises(TrainingError, match=r"002_mask\.png, the mask of .*002\.png, cannot be read"):
        data.load(f"parts:{mvtec}", 32, 3)


def test_a_folder_with_one_picture_is_refused(tmp_path: Path) -> None:
    plate(0).save(tmp_path / "one.png")
    with pytest.raises(TrainingError, match="1 readable pictures; at least 8"):
        data.load(f"parts:{tmp_path}", 32, 3)


def test_textures_share_no_pixel_between_splits(tmp_path: Path) -> None:
    """Pictures whose levels are their rows, or their columns: what is cut from them says from where."""
    rows = np.repeat(np.arange(textures.HEIGHT)[:, None] // 2, textures.WIDTH, axis=1).astype(np.uint8)
    seen = []
    for levels in (rows, rows.T):
        Image.fromarray(levels).save(tmp_path / "brick.png")
        found = data.load(f"brick:{tmp_path}")
        seen.append([split[:, :, :, 0] for split in (found.train.images, found.validation.images, found.test.of(0))])
    places = [set(zip(y.ravel().tolist(), x.ravel().tolist(), strict=True)) for y, x in zip(*seen, strict=True)]
    assert max(x for part in places for _, x in part) == 340 // 2
    assert not places[1] & places[2]
    assert max(x for _, x in places[0]) <= min(x for part in places[1:] for _, x in part)
    assert found.test.masks is not None
    assert found.test.masks.any(axis=(1, 2)).tolist() == (found.test.labels > 0).tolist()


def test_defects_change_what_their_masks_say() -> None:
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (24, 64, 64, 1), np.uint8)
    made, masks, kinds = defects.damaged(pictures, random)
    assert (made == pictures)[~masks].all()
    assert kinds.tolist() == [*range(len(defects.KINDS))] * 4
    for picture, before, mask in zip(made, pictures, masks, strict=True):
        assert (picture != before)[mask].mean() > 0.5
        assert 0.002 < mask.mean() < 0.2


@pytest.mark.parametrize("kinds", forging.FORGERIES)
def test_forged_parts_differ_where_their_masks_say(kinds: forging.Forgeries) -> None:
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (60, 32, 32, 1), np.uint8)
    made, masks = forging.forged(pictures, random, kinds=kinds)
    assert (made.shape, made.dtype, masks.shape) == (pictures.shape, np.uint8, (60, 32, 32))
    changed = np.abs(made.astype(int) - pictures).max(axis=-1) > forging.CHANGED
    assert np.array_equal(changed & masks, masks)
    assert (made == pictures)[~masks & ~changed].mean() > 0.9
    assert masks.any(axis=(1, 2)).all()
    untouched, none = forging.forged(pictures, random, 0.0)
    assert np.array_equal(untouched, pictures)
    assert not none.any()


@pytest.mark.parametrize("shape", [(40, 40, 1), (40, 64, 3)])
def test_mottled_places_show_another_part_of_the_picture_in_another_level(shape: tuple[int, int, int]) -> None:
    random, alike, spread = np.random.default_rng(0), [], []
    for _ in range(60):
        picture = random.normal(128, 15, shape).clip(0, 255).astype(np.uint8)
        made, mask = forging.mottled(picture, random)
        assert (made == picture)[~mask].all()
        assert 0.005 <= mask.mean() < 0.13
        assert 0.4 * 15 - 5 < np.abs(made[mask].mean() - 128) < 90 + 5
        alike.append(np.corrcoef(made[mask].ravel(), picture[mask].ravel())[0, 1])
        spread.append(made[mask].std())
    assert 0 < np.quantile(alike, 0.1) < np.quantile(alike, 0.9) < 0.98  # it shines through, with something else before it
    assert min(spread) < 8 < 15 < max(spread)  # of less contrast and of more


@pytest.mark.parametrize("level", [0, 255])
def test_flat_pictures_are_mottled_to_where_there_is_room(level: int) -> None:
    for seed in range(20):
        made, mask = forging.mottled(np.full((32, 32, 1), level, np.uint8), np.random.default_rng(seed))
        assert np.array_equal(made[..., 0] != level, mask)


def test_thresholds_hold_what_they_promise() -> None:
    """Over many draws, the share of further pictures above a threshold is the one asked for, or less."""
    random, above = np.random.default_rng(0), []
    for _ in range(400):
        found = detection.normal(random.standard_normal(99), random.standard_normal(99), 0.05)
        above.append((random.standard_normal(1000) > found.threshold).mean())
    assert 0.045 < np.mean(above) < 0.05 + 1e-3
    for number, share, rank in ((20, 0.1, 19), (29, 0.1, 27), (98, 0.01, 98), (99, 0.01, 99), (199, 0.01, 198)):  # (n + 1)(1 - p), up
        ranked = detection.normal(np.arange(1.0, number + 1), 10 * np.arange(number, 0.0, -1), share)
        assert (ranked.threshold, ranked.pixel_threshold) == (rank, 10 * rank), number
    few = detection.normal(np.arange(19.0), np.arange(19.0), 0.01)
    assert (few.threshold, few.pixel_threshold, few.promised) == (18.0, 18.0, 0.05)
    assert "at most 5.00%" in detection.told(few)
    assert "99 are needed" in detection.told(few)
    assert "needed" not in detection.told(detection.normal(np.arange(99.0), np.arange(99.0), 0.01))


def test_what_lies_far_from_the_others_is_named() -> None:
    scores = np.array([1.0, 1.1, 0.9, 1.05, 9.0, 0.95, 3.0, 1.0])
    assert detection.outliers(scores).tolist() == [4, 6]
    assert detection.outliers(np.where(scores == 9.0, 0.1, scores)).tolist() == [6, 4]  # whose fit was drawn to them
    assert detection.outliers(np.array([-1, 0, 1, -1, 0, 1, 5.1, -4.9, 4.9])).tolist() == [6]  # beyond five deviations of 1
    assert detection.outliers(np.ones(9)).tolist() == []
    assert detection.outliers(scores[:6]).tolist() == []


def test_components_are_held_against_pictures_that_they_were_not_fitted_on() -> None:
    """Noise has no components: what they leave of new good pictures is as much as of bad ones."""
    random = np.random.default_rng(0)
    fitted, new, bad = (random.integers(0, 256, (60, 16, 16, 1), np.uint8) for _ in range(3))
    train, validation, test = (data.Split(pictures, np.zeros(len(pictures), np.int32)) for pictures in (fitted, new[:0], new))
    fit = Fit(height=16, width=16, channels=1, mode="stretch")
    found = data.Dataset("parts", "parts:noise", train, validation, test, fit, title="Noise", license="CC0-1.0", origin="drawn")
    normal = detection.normal(np.arange(9.0), np.arange(9.0), 0.1)
    figures = detecting._picture_figures(np.zeros(120), np.ones(20), normal, found, -1, np.concatenate([fitted, new]), bad)
    value, reference, _ = figures["anomaly_auroc"]
    assert value == 1.0
    assert reference is not None
    assert 0.35 < reference < 0.65


def test_errors_become_scores() -> None:
    random = np.random.default_rng(0)
    errors = random.random((3, 10, 10)).astype(np.float32)
    ranked = np.sort(errors.reshape(3, -1), axis=1)
    assert np.asarray(detection.mean(errors)) == pytest.approx(errors.mean(axis=(1, 2)), rel=1e-5)
    assert np.asarray(detection.largest(errors)) == pytest.approx(ranked[:, -10:].mean(axis=1), rel=1e-5)
    assert np.asarray(detection.largest(errors[:, :2, :2])) == pytest.approx(errors[:, :2, :2].max(axis=(1, 2)), rel=1e-5)
    each = np.asarray(detection.relative([errors, 8 * errors], np.array([0.5, 2])))
    assert each == pytest.approx((2 * errors + 4 * errors) / 2, rel=1e-5)


def test_errors_are_smoothed() -> None:
    spot = np.zeros((1, 21, 21), np.float32)
    spot[0, 10, 10] = 1
    assert detection.smoothed(spot, 0) is spot
    blurred = np.asarray(detection.smoothed(spot, 1.5))[0]
    assert blurred.sum() == pytest.approx(1, rel=1e-5)
    assert np.unravel_index(blurred.argmax(), blurred.shape) == (10, 10)
    places = np.arange(21) - 10
    assert np.sqrt((blurred.sum(axis=0) * places**2).sum()) == pytest.approx(1.5, rel=0.1)
    assert np.allclose(blurred, blurred.T)
    level = np.full((1, 8, 12), 3, np.float32)
    assert np.allclose(detection.smoothed(level, 2), level, atol=1e-5)  # at the edges too


def test_whitened_patches_have_one_variance_in_all_directions() -> None:
    random = np.random.default_rng(0)
    pictures = [random.standard_normal((500, 4)) @ np.diag([1, 5, 0.1, 20]) @ random.permutation(np.eye(4)) + 7 for _ in range(8)]
    gaussian = padim.Gaussian(4)
    for patches in pictures:
        gaussian.add(patches.astype(np.float32))
    matrix, offset = gaussian.whitening()
    white = np.concatenate(pictures) @ matrix - offset
    assert white.mean(axis=0) == pytest.approx(np.zeros(4), abs=0.01)
    assert np.cov(white.T) == pytest.approx(np.eye(4), abs=0.03)  # but for the ridge


def test_components_leave_what_normal_pictures_do_not_vary_in() -> None:
    random = np.random.default_rng(0)
    base = random.integers(60, 190, (1, 8, 8, 1))
    pictures = (base + random.integers(-50, 50, (30, 1, 1, 1)) + random.integers(-2, 3, (30, 8, 8, 1))).astype(np.uint8)
    left = detecting.Components(pictures)
    lighter, spotted = base + 30, base.copy()
    spotted[0, 2, 2] += 60
    assert left.directions.shape[1] == 1
    assert left(spotted.astype(np.uint8))[0] > 20 * left(lighter.astype(np.uint8))[0]


def test_figures_of_detection() -> None:
    assert metrics.auroc(np.array([1, 2, 3]), np.array([4, 5])) == 1.0
    assert metrics.auroc(np.array([1, 2]), np.array([1, 2])) == 0.5
    assert metrics.auroc(np.array([0, 3]), np.array([1, 2, 4])) == pytest.approx(4 / 6)
    assert metrics.f1(np.array([0, 5]), np.array([5, 6, 1]), 2) == pytest.approx(2 * 2 / (2 + 1 + 3))
    masks = np.zeros((2, 8, 8), bool)
    masks[0, 1:3, 1:3], masks[1, 4:8, 4:8] = True, True
    assert metrics.region_overlap(masks * np.uint8(200), masks) > 0.99
    half = masks.copy()
    half[1] = False
    assert metrics.region_overlap(half * np.uint8(200), masks) == pytest.approx(0.5 + 0.5 * 0.15, abs=0.01)


def test_from_a_folder_to_an_endpoint(
    tmp_path: Path,
    good: Path,
    mvtec: Path,
    start: type[Server],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[str, str]:
        capsys.readouterr()
        code = main(list(arguments))
        told = capsys.readouterr()
        assert code == 0, told.err
        return told.out, told.err

    for index in range(20, 40):
        plate(index).save(good / f"{index:02}.png")
    plate(3, scratched=True).save(good / "slipped-in.png")
    fit = ("fit", "padim", "--data", f"folder:{good}", "--image-size", "64", "--size", "64", "--out", "models/plates")
    _, told = run(*fit)
    assert "slipped-in.png looks unlike the other good ones" in told
    assert "are expected to be taken for anomalous. To promise 1.00%, 99 are needed" in told
    (good / "slipped-in.png").unlink()
    assert "looks unlike" not in run(*fit, "--overwrite")[1]
    folder = tmp_path / "models" / "plates"
    first = read(folder)
    assert first.normal is not None
    assert f"--data folder:{good}" in first.training.command

    server = start(ATELIER_MODELS=str(folder.parent))
    assert server.until_loaded().status_code == 200
    whole, bad = (
        server.client.post("/v1/anomaly", files={"image": encoded(plate(200, scratched))}, data={"model": "plates"}).json()
        for scratched in (False, True)
    )
    assert bad["is_anomalous"]
    assert bad["score"] > 2 * whole["score"]
    place = bad["regions"][0]
    assert place["x"] < 40 < place["x"] + place["width"]
    assert place["y"] < 30 < place["y"] + place["height"]

    _, told = run("evaluate", "plates", "--data", f"folder:{mvtec}")
    figures = read(folder).metrics
    assert figures["anomaly_auroc"].value == 1.0
    assert figures["anomaly_pixel_auroc"].value > 0.7
    assert {"heatmaps.png", "scores.png"} <= {path.name for path in (folder / "pictures").iterdir()}
    report = json.loads((folder / "report.json").read_text())
    own = data.load(f"parts:{good}", 64, 3)
    new = sum(int(Path(name).stem) < 12 for name in own.test.names)  # the same plates lie in both folders
    assert (report["normal"], report["anomalous"]) == (4 + new, 4)
    assert f"{12 - new} of 16 normal pictures are left out" in told

    more = tmp_path / "more"
    more.mkdir()
    for index in range(120):
        plate(1000 + index).save(more / f"{index}.png")
    calibrated, _ = run("calibrate", "plates", "--data", f"folder:{more}", "--false-positives", "0.02")
    assert "Thresholds from 120 normal pictures: of such, at most 2.00%" in calibrated
    again = read(folder)
    assert again.normal is not None
    assert (again.normal.pictures, again.normal.false_positives, again.metrics) == (120, 0.02, {})
    assert again.digest != first.digest
    assert not {"report.json", "pictures/heatmaps.png", "pictures/scores.png"} & {
        str(path.relative_to(folder)) for path in folder.rglob("*")
    }
    assert main(["evaluate", "plates", "--data", f"folder:{more}"]) == 1  # thresholds were set by these
    assert "has no normal pictures that are new to plates" in capsys.readouterr().err
    run("evaluate", "plates")
    assert json.loads((folder / "report.json").read_text())["normal"] == len(own.test)
    run("calibrate", "plates")
    held_out = read(folder).normal
    assert held_out is not None
    assert (held_out.pictures, held_out.false_positives) == (len(own.validation), 0.02)
    assert held_out.threshold == first.normal.threshold  # the largest score of the same few pictures
    copies = shutil.copytree(good, tmp_path / "copies")
    run("calibrate", "plates", "--data", f"folder:{copies}")
    copied = read(folder).normal
    assert copied is not None
    assert copied.pictures == len(own.validation) + len(own.test)  # whatever the folder is called, those fitted to set no thresholds
    assert {name: graph.sha256 for name, graph in again.graphs.items()} == {name: graph.sha256 for name, graph in first.graphs.items()}


def test_each_class_is_normal_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    for name, dark in (("dark", 0), ("light", 150)):
        (tmp_path / "shades" / name).mkdir(parents=True)
        for index in range(40):
            levels = np.random.default_rng(index + dark).integers(dark, dark + 100, (16, 16), np.uint8)
            Image.fromarray(levels).save(tmp_path / "shades" / name / f"{index}.png")
    arguments = ["one-class", "anomaly-autoencoder", "--data", "folder:shades", "--epochs", "20", "--batch-size", "8", "--width", "8"]
    assert main(arguments) == 0
    first, *rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert first[:2] == ["| normal", "AUROC"]
    assert [row[0] for row in rows[1:]] == ["| dark", "| light", "| mean"]
    assert all(float(row[1]) == 1.0 for row in rows[1:])
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs" / "one-class").rglob("*.onnx")}
    assert len(times) == 2
    assert main(arguments) == 0  # what is there is not made again
    assert {path: path.stat().st_mtime_ns for path in times} == times
    kept = tmp_path / "runs" / "one-class" / "models" / "anomaly-autoencoder-1"
    about = read(kept).training
    job = Job("anomaly-autoencoder", "folder:shades", 64, 3, {**about.config, "variant": about.variant}, 0)
    assert one_class._kept(kept, job) == read(kept)
    for other in ({"precision": "bfloat16"}, {"seed": 1}, {"config": {**job.config, "epochs": 21}}, {"source": "folder:others"}):
        assert one_class._kept(kept, dataclasses.replace(job, **other)) is None, other
    capsys.readouterr()
    assert main(["one-class", "vae", "--data", "drawn"]) == 1
    assert capsys.readouterr().err.strip() == "vae detects no anomalies."
    assert main(["one-class", "padim", "--data", "maps:nowhere"]) == 1


def test_mistakes_with_detectors_end_in_one_line(
    tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments, said in (
        (["fit", "padim", "--data", "drawn", "--normal", "10"], "has 10 classes"),
        (["fit", "padim", "--data", "drawn"], "which one is --normal"),
        (["fit", "padim", "--data", "brick:nowhere"], "install scikit-image"),
        (["fit", "padim", "--data", "solar:nowhere"], "install elpv-dataset"),
        (["fit", "padim", "--data", f"folder:{good}", "--size", "100"], "--size 100: it has to be a multiple of 8"),
        (["fit", "padim", "--false-positives", "1"], "not below 1"),
        (["fit", "f-anogan", "--inversion", "0"], "0 is not above 0"),
        (["calibrate", "vae", "--models", str(ROOT / "models"), "--data", "drawn"], "only detectors of anomalies"),
        (["calibrate", "nobody", "--data", f"folder:{good}"], "there is no model nobody in models/"),
    ):
        try:
            code = main(arguments)
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        assert code in (1, 2), arguments
        assert said in capsys.readouterr().err.strip().splitlines()[-1], arguments


def test_black_is_no_good_restoration_of_what_is_mostly_black() -> None:
    """Or a generator that does not know yet where strokes are stays there."""
    drawn = np.where(np.arange(100) < 25, 1.0, -1.0).astype(np.float32)
    black, grey = np.full(100, -1.0, np.float32), np.full(100, -0.8, np.float32)
    assert skip_ganomaly._difference(grey, drawn) < skip_ganomaly._difference(black, drawn)
    assert skip_ganomaly._difference(drawn, drawn) == 0
