"""Coverage-guided: bytes into the one path from bytes to pixels, where nothing but its own two errors may come out.

    make fuzz-images

Begins with the pictures of mutations.py; what leads to new places in the decoders is kept in build/fuzz/corpus and gone on with the next
time. What fails is written to build/fuzz, and is run again by giving its name as the argument.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["PIL", "service"]):
    from PIL import BmpImagePlugin, GifImagePlugin, JpegImagePlugin, MpoImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin  # noqa: F401

    from service.contract import images
    from service.contract.manifest import Fit

from mutations import seeds

MOST = 1_000_000
FITS = [Fit(height=20, width=30, channels=channels, mode=mode) for channels in (1, 3, 4) for mode in ("contain", "cover", "stretch")]
FOLDER = Path("build/fuzz")


def one(content: bytes) -> None:
    try:
        image = images.decode(content, MOST)
    except (images.UnreadableImage, images.ImageTooLarge):
        return
    assert image.mode in ("L", "RGB", "RGBA")
    assert image.width * image.height <= MOST
    to = FITS[len(content) % len(FITS)]
    assert images.fit(image, to).shape == (to.height, to.width, to.channels)
    assert images.whole(image, 3).shape == (image.height, image.width, 3)


def main() -> None:
    corpus = FOLDER / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for kind, pictures in seeds().items():
        for number, content in enumerate(pictures):
            (corpus / f"{kind.lower()}-{number}").write_bytes(content)
    given = sys.argv[1:] if any(not word.startswith("-") for word in sys.argv[1:]) else [*sys.argv[1:], str(corpus)]
    limits = ["-max_len=65536", "-timeout=10", "-rss_limit_mb=2048", f"-artifact_prefix={FOLDER}/"]
    atheris.Setup([sys.argv[0], *limits, *given], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
