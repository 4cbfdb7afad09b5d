"""Public downloads: fetched once, checked, cached."""

from __future__ import annotations

import gzip
import hashlib
import os
import urllib.request
import zlib
from http.client import HTTPException
from pathlib import Path

from training.problems import TrainingError


def cache() -> Path:
    """`ATELIER_CACHE`, or `~/.cache/atelier`."""
    return Path(os.environ.get("ATELIER_CACHE", Path.home() / ".cache" / "atelier"))


def fetch(url: str, target: Path, sha256: str, instead: str) -> Path:
    """Downloads a file to `target`, in one move once its SHA-256 is right.

    Args:
        sha256: of the content, unpacked where it is gzipped (what is packed may be packed in many ways).
        instead: what to do where the address cannot be reached, for the message.

    Raises:
        TrainingError: it cannot be reached, or gave another file.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=60) as answer:
            content = answer.read()
    except (OSError, HTTPException) as error:
        raise TrainingError(f"{target.name} is not here and {url} cannot be reached ({error}): {instead}.") from error
    if digest(content) != sha256:
        raise TrainingError(f"{url} gave another file than expected (its sha256 differs): {instead}.")
    unfinished = target.with_name(f"{target.name}.unfinished")
    unfinished.write_bytes(content)
    unfinished.replace(target)
    return target


def digest(content: bytes) -> str:
    """SHA-256 of a file's content, unpacked where it is gzipped; of one that does not unpack, nothing."""
    try:
        return hashlib.sha256(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).hexdigest()
    except (OSError, EOFError, zlib.error):
        return ""
