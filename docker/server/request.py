"""Parse and check the ``run`` requests of the toolchain server."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, Mapping


class BadRequestError(Exception):
    """An invalid request."""


@dataclasses.dataclass(frozen=True)
class JobRequest:
    """A command to run. ``cwd`` defaults to the server's folder; ``env`` extends its environment."""

    id: str
    argv: tuple[str, ...]
    cwd: str | None = None
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    timeout_s: float | None = None
    memory_mib: float | None = None


def read_job_request(fields: Mapping[str, Any]) -> JobRequest:
    """Check the fields of a ``run`` request.

    Raises:
        BadRequestError: a field is missing, unknown, or has the wrong type.
    """
    known = {field.name: field for field in dataclasses.fields(JobRequest)}
    unknown = sorted(set(fields) - set(known) - {"op"})
    if unknown:
        raise BadRequestError(f"unknown field {unknown[0]!r}")
    given = {name: fields[name] for name in known if fields.get(name) is not None}
    _check(isinstance(given.get("id"), str) and given["id"] != "", "id must be a non-empty string")
    _check(
        isinstance(given.get("argv"), list) and given["argv"] != [] and all(map(_is_text, given["argv"])),
        "argv must be a non-empty list of strings",
    )
    _check(_is_text(given.get("cwd", "")), "cwd must be a string")
    env = given.get("env", {})
    _check(
        isinstance(env, dict)
        and all(_is_text(name) and name != "" and "=" not in name for name in env)
        and all(map(_is_text, env.values())),
        "env must map names to strings",
    )
    for name in ("timeout_s", "memory_mib"):
        value = given.get(name, 1)
        _check(
            isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0,
            f"{name} must be a number above 0",
        )
    return JobRequest(**{**given, "argv": tuple(given["argv"])})


def _check(is_right: bool, wanted: str) -> None:
    if not is_right:
        raise BadRequestError(f"bad request: {wanted}")


def _is_text(value: object) -> bool:
    """Return whether a value is a string that can be passed to the operating system."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return False
    return True
