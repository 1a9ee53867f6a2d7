"""TOCO's own small files, and a recipe they fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import pytest

from runner.digests import digest_bytes
from runner.recipe import PublishedIdentity, Recipe, Structure, load_recipe

if TYPE_CHECKING:
    from runner.recipe import Variant

DATA: Final = Path(__file__).resolve().parents[2] / "data" / "tiny_detector"
CONV_WEIGHTS: Final = "FakeQuantWithMinMaxArgs_1"
"""The weights of the first convolution in the uint8 files."""

IdentityOf = Callable[[bytes], PublishedIdentity]


@pytest.fixture
def data_dir() -> Path:
    return DATA


@pytest.fixture(params=["fp32", "uint8"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def runs(kind: str) -> tuple[bytes, ...]:
    """Five runs of one TOCO on one graph."""
    return tuple((DATA / f"{kind}.run{number}.tflite").read_bytes() for number in range(5))


@pytest.fixture
def other_toco(kind: str) -> bytes:
    """A run of TensorFlow 2.1.4's TOCO on the same graph."""
    return (DATA / f"{kind}.tf2.1.tflite").read_bytes()


@pytest.fixture
def uint8_run() -> bytes:
    return (DATA / "uint8.run0.tflite").read_bytes()


@pytest.fixture
def without_post_processing() -> bytes:
    return (DATA / "no_post_processing.tflite").read_bytes()


@pytest.fixture
def identity_of() -> IdentityOf:
    """Take a file's digests as if they were those of a published one."""

    def identity(content: bytes) -> PublishedIdentity:
        digests = digest_bytes(content)
        return PublishedIdentity(
            md5=digests.md5, git_blob=digests.git_blob, url="https://example.org/it.tflite"
        )

    return identity


@pytest.fixture
def tiny_recipe() -> Recipe:
    """Return the recipe as it would be if the tiny detector had been published."""
    recipe = load_recipe()
    assert recipe.structure is not None
    return replace(
        recipe,
        name="tiny",
        input_shape=(1, 8, 8, 3),
        structure=Structure(
            tensors=23,
            operators={
                "CONV_2D": 3,
                "DEPTHWISE_CONV_2D": 1,
                "RESHAPE": 2,
                "LOGISTIC": 1,
                "TFLite_Detection_PostProcess": 1,
            },
            post_processing={**recipe.structure.post_processing, "num_classes": 2},
        ),
        variants=MappingProxyType({name: _published(variant) for name, variant in recipe.variants.items()}),
    )


def _published(variant: Variant) -> Variant:
    digests = digest_bytes((DATA / f"{variant.name}.run4.tflite").read_bytes())
    return replace(
        variant,
        published=PublishedIdentity(md5=digests.md5, git_blob=digests.git_blob, url="https://example.org/"),
    )
