"""The stand-in's values are the same on every machine; here with another numpy than the toolchain's."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from runner.recipes.recipe import load_recipe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

# Of all tensors at seed 0, as the toolchain's numpy 1.18 gives them.
DIGESTS = {
    "fp32": "09489c241e5b0549d17b8d83824df6ff29c9bc87b6d64abc9d5bfd426b5e3fa5",
    "uint8": "0f3fcd64346cd4dd6f1bee2edf54b3c33dfbe5ad20f26c22399e2afd282efd72",
}


@pytest.fixture
def stand_in(load_step: Callable[[str], ModuleType]) -> ModuleType:
    return load_step("stand_in")


def values_of(stand_in: ModuleType, variant: str, seed: int) -> dict[str, np.ndarray]:
    folder = load_recipe().variants[variant].data_dir
    assert folder is not None
    known = {"global_step": 400000, **stand_in.read_quant_ranges(folder / "quant_ranges.tsv")}
    table = stand_in.read_tensor_table(folder / "tensors.tsv")
    return {name: stand_in.choose_value(name, tensor, known, seed) for name, tensor in table.items()}


@pytest.mark.parametrize("variant", DIGESTS)
def test_same_seed_gives_the_same_bytes_everywhere(stand_in: ModuleType, variant: str) -> None:
    assert stand_in.digest(values_of(stand_in, variant, seed=0)) == DIGESTS[variant]


def test_another_seed_gives_other_weights_and_the_same_ranges(stand_in: ModuleType) -> None:
    one, other = (values_of(stand_in, "uint8", seed=seed) for seed in (0, 1))
    kept = {name for name in one if np.array_equal(one[name], other[name])}
    assert kept == {name for name in one if name.endswith(("quant/min", "quant/max"))} | {"global_step"}


@pytest.mark.parametrize(
    ("name", "shape", "fan_in"),
    [("Conv/weights", (3, 3, 64, 128), 576), ("Conv/depthwise_weights", (5, 5, 640, 1), 25)],
)
def test_weights_keep_a_signals_size(
    stand_in: ModuleType, name: str, shape: tuple[int, ...], fan_in: int
) -> None:
    weights = stand_in.choose_value(name, stand_in.Variable("float32", shape), {}, 0)
    assert weights.dtype == np.float32
    assert weights.var() == pytest.approx(2 / fan_in, rel=0.05)


def test_unknown_kind_of_variable_is_refused(stand_in: ModuleType) -> None:
    with pytest.raises(stand_in.InputError, match="Conv/kernel"):
        stand_in.choose_value("Conv/kernel", stand_in.Variable("float32", (1,)), {}, 0)


def test_bound_of_weights_is_the_largest_one(stand_in: ModuleType) -> None:
    shape = (3, 3, 64, 128)
    weights = stand_in.choose_value("Conv/weights", stand_in.Variable("float32", shape), {}, 0)
    assert np.abs(weights).max() == pytest.approx(stand_in.weights_limit("weights", shape), rel=0.001)


@pytest.mark.parametrize(
    ("source", "variant", "said"),
    [
        ("published_source", None, "--recipe-dir needs --variant"),
        ("config_source", "fp32", "--variant is for"),
    ],
)
def test_variant_is_for_a_recipe(
    stand_in: ModuleType, tmp_path: Path, source: str, variant: str | None, said: str
) -> None:
    options = Namespace(recipe_dir=tmp_path, pipeline_config=tmp_path, output=tmp_path, variant=variant)
    with pytest.raises(stand_in.InputError, match=said):
        getattr(stand_in, source)(options)


def test_slots_are_those_of_momentum(stand_in: ModuleType) -> None:
    slots = stand_in.momentum_slots(values_of(stand_in, "fp32", seed=0), 0)
    assert len(slots) == 12 + 27 + 66 + 81 + 81
    assert all(name.endswith("/Momentum") and "moving" not in name for name in slots)


def test_folder_of_somebody_else_is_refused(stand_in: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "model.ckpt-400000.index").write_bytes(b"mine")
    with pytest.raises(stand_in.InputError, match="not a stand-in"):
        stand_in.refuse_foreign_folder(tmp_path)


def test_earlier_stand_in_may_be_replaced(stand_in: ModuleType, tmp_path: Path) -> None:
    (tmp_path / stand_in.README_NAME).write_text(stand_in.README_TITLE)
    stand_in.refuse_foreign_folder(tmp_path)
    stand_in.refuse_foreign_folder(tmp_path / "new")
