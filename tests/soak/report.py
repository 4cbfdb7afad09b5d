"""Where figures go: sections of docs/load.md, each replaced as a whole by the command that measures it."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from support import ROOT

LOAD = ROOT / "docs" / "load.md"


def write(section: str, lines: list[str]) -> None:
    """Prints the lines as a list, and puts them in the place of what the section had."""
    text = "\n".join(f"- {line}" for line in [*lines, f"Machine: {_machine()}"])
    print(text)
    beginning, end = f"<!-- {section}: made by make {section} -->\n", f"\n<!-- /{section} -->"
    before = LOAD.read_text()
    after = re.sub(f"(?<={re.escape(beginning)}).*?(?={re.escape(end)})", lambda _: text, before, flags=re.DOTALL)
    assert after != before, f"{LOAD.name} has no section {section}"
    LOAD.write_text(after)


def _machine() -> str:
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{os.cpu_count()} x {names[0] if names else platform.machine()}, which the callers share"
