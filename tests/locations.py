"""Locations of the project and of the tests' small data files."""

from __future__ import annotations

from typing import Final

from runner.toolchain.pins import PROJECT_ROOT

DOCKER_DIR: Final = PROJECT_ROOT / "docker"
DATA: Final = PROJECT_ROOT / "tests" / "data"
TINY_CHECKPOINT: Final = DATA / "tiny_checkpoint"
TINY_DETECTOR: Final = DATA / "tiny_detector"
TINY_GRAPH: Final = DATA / "tiny_graph"
TINY_GRAPH_SHA256: Final = "a432933a5e29680d1c0143ec12f5cf19831a6daa1ba0e080bb32180b2c26dadc"
"""What TensorFlow's deterministic serialization of the tiny graph has."""
