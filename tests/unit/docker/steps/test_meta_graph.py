from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

BUILDER = """
def build(config):
    if config.iou_threshold > 1:
        raise ValueError("iou")
    if config.max_detections_per_class > config.max_total_detections:
        raise ValueError("limits")
    return "built"
"""


class Config:
    iou_threshold = 0.5
    max_detections_per_class = 100
    max_total_detections = 10


@pytest.fixture
def step(load_step: Callable[[str], ModuleType]) -> ModuleType:
    return load_step("meta_graph")


def load_builder(path: Path, source: str) -> ModuleType:
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_limits_check_is_switched_off_in_memory_only(step: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "builder.py"
    builder = load_builder(path, BUILDER)
    with pytest.raises(ValueError, match="limits"):
        builder.build(Config)
    report = step.switch_off_limits_check(builder)
    assert builder.build(Config) == "built"
    assert path.read_text() == BUILDER
    assert report == {
        "module": "builder",
        "line": 5,
        "statement": "if config.max_detections_per_class > config.max_total_detections:",
    }


def test_other_checks_stay(step: ModuleType, tmp_path: Path) -> None:
    builder = load_builder(tmp_path / "builder.py", BUILDER)
    step.switch_off_limits_check(builder)

    class Overlapping(Config):
        iou_threshold = 2.0

    with pytest.raises(ValueError, match="iou"):
        builder.build(Overlapping)


def test_module_without_the_check_is_refused(step: ModuleType, tmp_path: Path) -> None:
    builder = load_builder(tmp_path / "builder.py", "def build(config):\n    return config\n")
    with pytest.raises(step.InputError, match="found 0 checks"):
        step.switch_off_limits_check(builder)


def test_blob_id_is_gits(step: ModuleType) -> None:
    assert step.git_blob_id(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
