"""Add the toolchain's files to the wheel; hatchling runs this module when it builds a wheel.

In the repository these files are in the top folder. In the wheel they are in ``runner/_toolchain``, because
an installed ``docker/`` beside the package would shadow the Docker SDK.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ToolchainFiles(BuildHookInterface):
    """Map the files that ``runner/toolchain/files.py`` lists to their paths in the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add these files to the wheel; an editable installation does not need them."""
        if version == "editable":
            return
        sys.path.insert(0, self.root)  # the build environment has hatchling, not this project
        from runner.toolchain.files import packaged_files
        from runner.toolchain.pins import BUNDLE

        root = Path(self.root)
        for file in packaged_files(root):
            build_data["force_include"][str(root / file)] = f"{BUNDLE}/{file}"
