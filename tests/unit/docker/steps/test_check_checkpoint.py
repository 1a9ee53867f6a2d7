from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType


@pytest.fixture
def step(load_step: Callable[[str], ModuleType]) -> ModuleType:
    return load_step("check_checkpoint")


@pytest.mark.parametrize("suffix", [".index", ".meta", ".data-00000-of-00001"])
def test_file_instead_of_prefix_names_the_prefix(step: ModuleType, tmp_path: Path, suffix: str) -> None:
    with pytest.raises(step.InputError) as refusal:
        step.refuse_file_name(tmp_path / f"model.ckpt-400000{suffix}")
    assert refusal.value.tip == f"use {tmp_path / 'model.ckpt-400000'}"


def test_folder_instead_of_prefix_names_the_checkpoints_in_it(step: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "model.ckpt-7.index").touch()
    with pytest.raises(step.InputError, match="folder") as refusal:
        step.refuse_file_name(tmp_path)
    assert str(tmp_path / "model.ckpt-7") in refusal.value.tip


def test_missing_index_names_the_checkpoints_beside_it(step: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "model.ckpt-7.index").touch()
    with pytest.raises(step.InputError, match=r"model\.ckpt\.index: no such file") as refusal:
        step.refuse_incomplete(tmp_path / "model.ckpt")
    assert str(tmp_path / "model.ckpt-7") in refusal.value.tip


def test_missing_data_is_named(step: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "model.ckpt.index").touch()
    with pytest.raises(step.InputError, match=r"model\.ckpt\.data-00000-of-00001"):
        step.refuse_incomplete(tmp_path / "model.ckpt")
    (tmp_path / "model.ckpt.data-00001-of-00003").touch()
    (tmp_path / "model.ckpt.data-00002-of-00003").touch()
    with pytest.raises(step.InputError, match=r"model\.ckpt\.data-00000-of-00003"):
        step.refuse_incomplete(tmp_path / "model.ckpt")
    (tmp_path / "model.ckpt.data-00000-of-00003").touch()
    step.refuse_incomplete(tmp_path / "model.ckpt")


@pytest.mark.parametrize(
    ("name", "checkpoint_shape", "cause"),
    [
        ("Conv/weights_quant/min", None, "only quantization ranges are missing"),
        ("Conv/weights/ExponentialMovingAverage", None, "use_moving_averages"),
        ("BoxPredictor_0/ClassPredictor/biases", (9,), "num_classes"),
        ("Conv/weights", None, "different models"),
        ("Conv/weights", (9,), "the pipeline.config from"),
    ],
)
def test_likely_cause_of_a_mismatch_is_named(
    step: ModuleType, name: str, checkpoint_shape: tuple[int, ...] | None, cause: str
) -> None:
    mismatches = [step.Mismatch(name, (3,), checkpoint_shape)]
    assert cause in step.likely_cause(mismatches, {name: (3,)}, 2)


def test_ten_mismatches_are_listed_and_the_rest_counted(step: ModuleType, tmp_path: Path) -> None:
    in_model = {f"Conv_{number}/weights": (3,) for number in range(25)}
    mismatches = [step.Mismatch(name, shape, (4,)) for name, shape in in_model.items()]
    with pytest.raises(step.InputError) as refusal:
        step.refuse_mismatches(
            mismatches,
            in_model,
            tmp_path / "pipeline.config",
            tmp_path / "model.ckpt",
            num_classes=90,
        )
    first, *listed, rest = refusal.value.message.splitlines()
    assert "25 of 25 variables" in first
    assert len(listed) == 10
    assert listed[0].strip() == "Conv_0/weights: [3] in the model, [4] in the checkpoint"
    assert rest.strip() == "and 15 more"


@pytest.mark.parametrize(
    ("in_checkpoint", "classes"), [((546, 546), 90), ((546, 273), None), ((547, 547), None), ((12, 12), 1)]
)
def test_the_number_of_classes_that_fits_is_named(
    step: ModuleType, in_checkpoint: tuple[int, ...], classes: int | None
) -> None:
    mismatches = [
        step.Mismatch(f"BoxPredictor_{number}/ClassPredictor/biases", (24,), (channels,))
        for number, channels in enumerate(in_checkpoint)
    ]
    # 24 channels: six anchors, each with three classes and the background
    assert step.fitting_classes(mismatches, 3) == classes
    said = step.likely_cause(mismatches, {"other": (1,)}, 3)
    assert ("it would fit" in said) is (classes is not None)
