from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.docker.steps.conftest import STEPS_DIR

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


@pytest.fixture
def step(load_step: Callable[[str], ModuleType]) -> ModuleType:
    return load_step("pipeline_config")


@pytest.mark.parametrize(
    ("field", "left"),
    [
        ("    foo: true", "    "),
        ("  a: 1 foo:false b: 2", "  a: 1  b: 2"),
        ("  foo : True, a: 1", "   a: 1"),
        ("  foo: -1.5e-3; a: 1", "   a: 1"),
        ("  foo: 'a } b' \"c\" a: 1", "   a: 1"),
        ("  foo: [1, 2]\n a: 1", "  \n a: 1"),
        ("  foo { b { c: 'x }' } # }\n } a: 1", "  \n a: 1"),
        ("  foo: < b: 1 > a: 1", "   a: 1"),
        ("  foo # what\n : 1\n a: 1", "  \n\n a: 1"),
        ("  b { foo: 1 }", "  b {  }"),
    ],
)
def test_an_unknown_field_is_removed_and_lines_keep_their_numbers(
    step: ModuleType, field: str, left: str
) -> None:
    text = f"model {{\n{field}\n}} # foo: true\n"
    column = field.index("foo") + 1
    problem = step.UnknownFieldError(Path("x"), 2, column, "object_detection.protos.A", "foo")
    assert step.without_field(text, problem) == text.replace(field, left, 1)


def test_unknown_field_is_named_with_file_and_line(step: ModuleType) -> None:
    problem = step.UnknownFieldError(Path("x/pipeline.config"), 14, 3, "object_detection.protos.Ssd", "foo")
    assert "x/pipeline.config, line 14" in problem.message
    assert "no field foo in Ssd" in problem.message


def test_reals_are_given_as_a_config_says_them(load_step: Callable[[str], ModuleType]) -> None:
    step = load_step("pipeline_config")
    for real in (0.3, 1e-8, 0.0, 0.6):
        assert step._short(float(np.float32(real))) == real


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_short_form_means_the_same_real(real: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(STEPS_DIR)
        import pipeline_config  # type: ignore[import-not-found]

        assert np.float32(pipeline_config._short(real)) == np.float32(real)


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"", "is empty"), (b" \n", "is empty"), (b"\xff\xfe\x00", "binary"), (None, "No such file")],
)
def test_file_that_is_no_text_is_refused(
    load_step: Callable[[str], ModuleType], tmp_path: Path, content: bytes | None, what: str
) -> None:
    detection = load_step("_detection")
    path = tmp_path / "pipeline.config"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(detection.InputError, match=what):
        detection.read_config_text(path)
