"""Translate pip's configuration into environment variables for uv, because uv does not read pip's files.

Users configure package index, mirror, proxy and certificates for pip in files and environment variables. pip
itself reports all of them (``pip config list``).
"""

from __future__ import annotations

import ast
import re
import subprocess
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SECTIONS: Final = ("global", "install", ":env:")
"""In the order in which pip applies them; later ones take precedence."""
UV_VARIABLES: Final = {
    "index-url": ("UV_DEFAULT_INDEX",),
    "extra-index-url": ("UV_INDEX",),
    "find-links": ("UV_FIND_LINKS",),
    "no-index": ("UV_NO_INDEX",),
    "trusted-host": ("UV_INSECURE_HOST",),
    "proxy": ("HTTPS_PROXY", "HTTP_PROXY"),
    "cert": ("SSL_CERT_FILE",),
    "client-cert": ("SSL_CLIENT_CERT",),
    "timeout": ("UV_HTTP_TIMEOUT",),
    "default-timeout": ("UV_HTTP_TIMEOUT",),
    "retries": ("UV_HTTP_RETRIES",),
}
"""pip's options and uv's variables of the same meaning (https://docs.astral.sh/uv/reference/environment/)."""


def uv_settings(python: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for uv that correspond to the configuration of this Python's pip."""
    command = [str(python), "-m", "pip", "config", "list"]
    listed = subprocess.run(
        command, env=dict(environment), capture_output=True, text=True, check=False
    ).stdout
    options: dict[str, str] = {}
    for section in SECTIONS:
        found = re.findall(rf"^{re.escape(section)}\.([\w-]+)=(.*)$", listed, flags=re.MULTILINE)
        options |= {name: str(ast.literal_eval(value)) for name, value in found}
    return {
        variable: _value(name, value)
        for name, value in options.items()
        for variable in UV_VARIABLES.get(name, ())
    }


def _value(name: str, value: str) -> str:
    """Format a value for uv: pip separates multiple values by white space, uv by commas or blanks."""
    if name == "no-index":
        return "0" if value.lower() in ("", "0", "false", "no", "off") else "1"
    return ("," if name == "find-links" else " ").join(value.split())
