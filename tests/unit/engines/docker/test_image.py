"""Failed image builds, by the daemon's messages."""

from __future__ import annotations

import pytest

from runner.engines.docker.image import _follow_build
from runner.errors import BuildError, DiskFullError

STEP = {"stream": "Step 3/9 : RUN pip install\n"}


def test_a_full_disk_of_the_daemon_is_told_apart() -> None:
    end = {"error": "write /var/lib/docker/overlay2/x: no space left on device"}
    with pytest.raises(DiskFullError, match=r"Step 3/9.*no space left") as caught:
        _follow_build(iter([STEP, end]))
    assert caught.value.exit_code == 6
    assert "docker system df" in (caught.value.tip or "")


def test_a_step_that_says_so_is_a_full_disk_too() -> None:
    said = {"stream": "OSError: [Errno 28] No space left on device\n"}
    with pytest.raises(DiskFullError) as caught:
        _follow_build(iter([STEP, said, {"error": "The command returned a non-zero code: 1"}]))
    assert "OSError: [Errno 28] No space left on device" in caught.value.last_lines


def test_any_other_end_of_a_build_is_a_build_error() -> None:
    with pytest.raises(BuildError, match=r"Step 3/9.*code: 1"):
        _follow_build(iter([STEP, {"error": "The command returned a non-zero code: 1"}]))
