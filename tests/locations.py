"""Where the tests find the project and the small files that are kept for them."""

from __future__ import annotations

from typing import Final

from runner.toolchain.pins import PROJECT_ROOT

DOCKER_DIR: Final = PROJECT_ROOT / "docker"
DATA: Final = PROJECT_ROOT / "tests" / "data"
TINY_CHECKPOINT: Final = DATA / "tiny_checkpoint"
TINY_DETECTOR: Final = DATA / "tiny_detector"
TINY_GRAPH: Final = DATA / "tiny_graph"
