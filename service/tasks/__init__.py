"""One module an operation. A new one is a file here and a line below."""

from __future__ import annotations

from types import ModuleType

from service.tasks import anomaly, caption, digits, embed, generate, inpaint, reconstruct, swap, translate, upscale

TASKS: tuple[ModuleType, ...] = (generate, digits, embed, reconstruct, translate, upscale, inpaint, anomaly, caption, swap)
"""Each offers TASK (its name), ROLES (the graphs it wants), REQUEST (its body) and router."""

ROLES = {task.TASK: task.ROLES for task in TASKS}
"""The graphs that each wants, by its name."""
