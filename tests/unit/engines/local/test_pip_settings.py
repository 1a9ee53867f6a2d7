"""What a user configured for pip reaches uv."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from runner.engines.local.pip_settings import uv_settings

PYTHON = Path(sys.executable)


def settings(tmp_path: Path, configuration: str, **variables: str) -> dict[str, str]:
    file = tmp_path / "pip.conf"
    file.write_text(configuration)
    # PIP_CONFIG_FILE is read after the files of the machine and of the user, whose home is empty.
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PIP_CONFIG_FILE": str(file), **variables}
    environment |= {"XDG_CONFIG_HOME": str(tmp_path), "XDG_CONFIG_DIRS": str(tmp_path)}
    return uv_settings(PYTHON, environment)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("index-url = https://mirror/simple", {"UV_DEFAULT_INDEX": "https://mirror/simple"}),
        (
            "extra-index-url =\n    https://a/simple\n    https://b",
            {"UV_INDEX": "https://a/simple https://b"},
        ),
        ("find-links = /w1 /w2", {"UV_FIND_LINKS": "/w1,/w2"}),
        ("no-index = true", {"UV_NO_INDEX": "1"}),
        ("no-index = false", {"UV_NO_INDEX": "0"}),
        ("trusted-host = mirror other", {"UV_INSECURE_HOST": "mirror other"}),
        ("proxy = http://p:1", {"HTTPS_PROXY": "http://p:1", "HTTP_PROXY": "http://p:1"}),
        ("cert = /ca.pem", {"SSL_CERT_FILE": "/ca.pem"}),
        ("timeout = 99", {"UV_HTTP_TIMEOUT": "99"}),
        ("quiet = 1", {}),
    ],
)
def test_an_option_of_a_configuration_file(tmp_path: Path, line: str, expected: dict[str, str]) -> None:
    found = settings(tmp_path, f"[global]\n{line}\n")
    assert {name: found[name] for name in expected} == expected


def test_a_variable_is_stronger_than_a_file_and_install_than_global(tmp_path: Path) -> None:
    text = "[global]\nindex-url = https://one\ncert = /one\n[install]\nindex-url = https://two\ncert = /two\n"
    found = settings(tmp_path, text, PIP_CERT="/three")
    assert (found["UV_DEFAULT_INDEX"], found["SSL_CERT_FILE"]) == ("https://two", "/three")
