"""The examples of docs/python-api.md."""

from __future__ import annotations

import re
from typing import Final

from runner.toolchain.pins import PROJECT_ROOT

PAGE: Final = PROJECT_ROOT / "docs" / "python-api.md"


def examples(*, with_toolchain: bool) -> list[str]:
    """Return the examples that need a toolchain, or those that need none, in the order of the page."""
    blocks = re.findall(r"^```python( toolchain)?\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
    return [code for mark, code in blocks if bool(mark) == with_toolchain]
