"""A session whose server does not answer."""

from __future__ import annotations

import subprocess
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pytest

from runner.engines import session
from runner.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator


class PipeTo:
    """The stdin and stdout of a process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def send(self, payload: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(payload)

    def lines(self) -> Iterator[bytes]:
        yield from self._process.stdout or ()


def test_a_server_that_never_answers_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "START_TIMEOUT_S", 0.2)
    command = ["sleep", "600"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as silent:
        opened = session.ServerSession(
            PipeTo(silent), toolchain_dir=PurePosixPath("/"), why_gone=lambda: "it went"
        )
        try:
            with pytest.raises(EngineError, match="the toolchain did not start within") as caught:
                opened.run("true")
        finally:
            silent.kill()
    assert caught.value.exit_code == 3
    assert "doctor" in str(caught.value.tip)
