"""What schemathesis leaves out."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """A list in a form is no field at all, or one field an item: on the wire nothing of the list is left that could be refused."""
    lists = isinstance(case.body, dict) and any(isinstance(value, list) for value in case.body.values())
    return not (lists and case.media_type == "multipart/form-data")
