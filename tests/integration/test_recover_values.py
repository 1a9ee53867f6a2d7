"""Values that training leaves in a checkpoint and random ones lack: `prove FILE` makes the same bytes again.

The checkpoint of a small detector is altered, exported and converted; then the file alone is proven.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest

from runner.convert.export import GRAPH_NAME, edit_config
from runner.convert.stand_in import write_synthetic
from runner.engines.base import Folders
from runner.engines.persistent import PersistentEngine
from runner.proof.recovery.prove_file import FileVerdict, prove_file
from runner.proof.recovery.recover import read_subject
from runner.recipes.settings import Nms, Settings
from runner.scripts.provider import ToolchainProvider
from runner.scripts.run import ScriptOptions
from tests.integration.altered_checkpoint import write_altered
from tests.integration.test_synthetic import Model, Place
from tests.locations import DATA

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import Any

    from runner.engines.base import Engine
    from runner.proof.recovery.prove_file import FileProof
    from runner.recipes.recipe import Recipe

pytestmark = [pytest.mark.slow, pytest.mark.engine("local")]

SETTINGS: Final = Settings(nms=Nms.FAST)
MODEL: Final = Model(folder=DATA / "small_detector")
CHANNELS: Final = """
for name, values in tensors.items():
    if name.endswith(("/gamma", "/beta")):
        values[:3] = 0  # channels that training has switched off
    if name.endswith("/gamma"):
        values[3::4] *= -1
    if name.endswith("/moving_variance"):
        values[5] = 1e-12
"""
WEIGHTS: Final = """
ranges = sorted(name for name in tensors if name.endswith("weights_quant/min"))
for number, name in enumerate(ranges):
    low, high = ((-0.31, 1.17), (-2.5, 0.02), (0.0, 0.75), (-0.4, 0.0), (-1.0, 1.0))[number % 5]
    tensors[name], tensors[name[:-3] + "max"] = np.float32(low), np.float32(high)
"""
ACTIVATIONS: Final = """
ranges = sorted(name for name in tensors if name.endswith("act_quant/min") and "BoxPredictor" not in name)
for number, name in enumerate(ranges):
    low, high = ((0.0, 5.9876), (0.125, 3.3), (-1e-4, 6.0), (-0.02, 0.7), (0.0, 1e-3))[number % 5]
    tensors[name], tensors[name[:-3] + "max"] = np.float32(low), np.float32(high)
"""
LOGITS: Final = """
ranges = sorted(name for name in tensors if name.endswith("act_quant/min") and "ClassPredictor/" in name)
for number, name in enumerate(ranges):
    low, high = ((-12.5, -0.3), (-9.75, -2.0), (-14.0, 0.5), (-7.0, 1.7))[number % 4]
    tensors[name], tensors[name[:-3] + "max"] = np.float32(low), np.float32(high)
"""
BIASES: Final = """
for name, values in tensors.items():
    if name.endswith("/beta"):
        values *= np.float32(3e4)  # millions of steps
"""
QUANTIZED: Final[Mapping[str, str]] = {
    "channels": CHANNELS,
    "ranges of weights": WEIGHTS,
    "ranges of activations": ACTIVATIONS,
    "logits below zero": LOGITS,
    "large biases": BIASES,
}


@dataclass(frozen=True, kw_only=True)
class Detector:
    """The small detector: its checkpoint, and what proves a file that was made from a copy of it."""

    place: Place
    prefix: Path
    report: Mapping[str, Any]
    engine: Engine

    def file_with(self, change: str, name: str, *, concat: bool = False) -> Path:
        """Convert a copy of the checkpoint with a change of its tensors."""
        folder = self.place.folder / name.replace(" ", "-")
        prefix = write_altered(self.place.session, self.prefix, folder / "model.ckpt", change)
        graph = self.place.export(prefix, SETTINGS, folder)
        assert graph == folder / GRAPH_NAME
        model = Model(folder=MODEL.folder, change_concat_input_ranges=concat)
        made = self.place.toco(model, graph, self.report)
        return made.rename(folder / "model.tflite")

    def prove(self, file: Path) -> FileProof:
        options = ScriptOptions(log_dir=file.parent / "logs")
        provider = ToolchainProvider(engine=lambda: self.engine, options=lambda: options)
        config = self.place.folder / "pipeline.config"
        return prove_file(file, read_subject(file, recipe=None, config=config), provider)


@pytest.fixture(scope="module")
def detector(engine: Engine, recipe: Recipe, workspace: Path) -> Iterator[Detector]:
    folder = workspace / "small-detector"
    folder.mkdir()
    options = ScriptOptions(log_dir=folder / "logs")
    with contextlib.closing(PersistentEngine(engine, Folders())) as kept, kept.open(Folders(), {}) as session:
        place = Place(session=session, recipe=recipe, folder=folder, options=options)
        archive = place.archive(MODEL)
        prefix = write_synthetic(session, archive, options)
        report = edit_config(session, place.edit(archive, SETTINGS), options)
        yield Detector(place=place, prefix=prefix, report=report, engine=kept)


@pytest.mark.parametrize("change", QUANTIZED)
def test_quantized_file_is_made_again(detector: Detector, change: str) -> None:
    proof = detector.prove(detector.file_with(QUANTIZED[change], change))
    assert proof.verdict is FileVerdict.SAME_BYTES, proof.best.reasons


def test_logits_below_zero_that_were_clipped_are_made_again(detector: Detector) -> None:
    proof = detector.prove(detector.file_with(LOGITS, "clipped", concat=True))
    assert proof.verdict is FileVerdict.SAME_BYTES, proof.best.reasons
