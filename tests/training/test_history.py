"""What is drawn of a run that is over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training import history
from training.loop import Run


@pytest.mark.parametrize("epochs", [0, 1, 2, 50])
def test_sheets_of_several_epochs_are_an_animation(tmp_path: Path, epochs: int) -> None:
    run = Run(tmp_path / "run")
    (run.folder / "samples").mkdir(parents=True)
    random = np.random.default_rng(0)
    (run.folder / "scalars.csv").write_text("20,loss,0.5\n40,loss,0.25\n")
    for epoch in range(1, epochs + 1):
        Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(run.folder / "samples" / f"epoch-{epoch:04d}.png")
    history.draw(run, tmp_path / "pictures")
    drawn = {path.name: path for path in (tmp_path / "pictures").iterdir()}
    assert drawn.keys() == ({"losses.png", "epochs.webp"} if epochs > 1 else {"losses.png"})
    if epochs > 1:
        with Image.open(drawn["epochs.webp"]) as animation:
            assert animation.n_frames == min(epochs, 40)


def test_sheets_of_several_sizes_are_an_animation(tmp_path: Path) -> None:
    """f-anogan's, of its generator first and of its encoder then."""
    run = Run(tmp_path / "run")
    (run.folder / "samples").mkdir(parents=True)
    (run.folder / "scalars.csv").write_text("20,loss,0.5\n40,loss,0.25\n")
    for epoch, size in enumerate([(16, 8), (8, 8), (8, 12)], 1):
        Image.new("RGB", size, "white").save(run.folder / "samples" / f"epoch-{epoch:04d}.png")
    history.draw(run, tmp_path / "pictures")
    with Image.open(tmp_path / "pictures" / "epochs.webp") as animation:
        assert (animation.n_frames, animation.size) == (3, (16, 12))
        animation.seek(2)
        last = np.asarray(animation.convert("L"))
    assert last[:11, :7].min() > 200
    assert last[:, 9:].max() < 50
