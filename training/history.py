"""What a run looked like: its losses as curves, its samples over the epochs as one animation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from training.loop import Run

FRAMES = 40
MILLISECONDS, LAST_MILLISECONDS = 200, 3000


def draw(run: Run, folder: Path) -> None:
    """Writes `losses.png` and `epochs.webp` into `folder`, as far as the run left anything to draw them from."""
    folder.mkdir(parents=True, exist_ok=True)
    if scalars := run.scalars():
        _curves(scalars, folder / "losses.png")
    if len(sheets := run.sheets()) > 1:
        _animation(sheets, folder / "epochs.webp")


def _curves(scalars: dict[str, np.ndarray], path: Path) -> None:
    """One plot a scalar: what was reported, pale, and its running mean."""
    figure = Figure(figsize=(4 * len(scalars), 2.8), layout="constrained")
    for axis, (name, points) in zip(figure.subplots(1, len(scalars), squeeze=False)[0], scalars.items(), strict=True):
        window = max(1, len(points) // 50)
        smooth = np.convolve(points[:, 1], np.ones(window) / window, mode="valid")
        axis.plot(*points.T, color="#9ecae1", linewidth=0.6)
        axis.plot(points[window - 1 :, 0], smooth, color="#08519c", linewidth=1.4)
        low, high = np.percentile(points[:, 1], [0.5, 99.5])
        margin = 0.05 * (high - low) + 1e-12
        axis.set(title=name.replace("_", " "), xlabel="step", ylim=(low - margin, high + margin))
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=80)


def _animation(sheets: list[Path], path: Path) -> None:
    """The sheets of at most 40 epochs, evenly chosen, the first and the last among them; the last stands longest.

    Smaller ones, of a recipe that first draws one thing and then another, stand on black.
    """
    chosen = np.unique(np.linspace(0, len(sheets) - 1, min(len(sheets), FRAMES)).round().astype(int))
    frames = [Image.open(sheets[index]).convert("RGB") for index in chosen]
    size = max(frame.width for frame in frames), max(frame.height for frame in frames)
    frames = [frame.crop((0, 0, *size)) for frame in frames]
    durations = [MILLISECONDS] * (len(frames) - 1) + [LAST_MILLISECONDS]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0, quality=60, method=4)
