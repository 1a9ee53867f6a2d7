"""A page in words, as Markdown and for a program."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command, ready to paste, and what it is."""

    title: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What can be said about a file; each string is a sentence or a few, in Markdown."""

    title: str
    what: tuple[str, ...]
    made_from: tuple[str, ...] = ()
    commands: tuple[Command, ...] = ()
    proven: tuple[str, ...] = ()
    not_proven: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return it for a program to read."""
        return asdict(self)

    def as_markdown(self) -> str:
        """Return it as one page."""
        commands = [f"{command.title}\n\n```sh\n{command.text}\n```" for command in self.commands]
        sections = {
            f"# {self.title}": "\n\n".join(self.what),
            "## Made from": _bullets(self.made_from),
            "## By these commands": "\n\n".join(commands),
            "## What is proven": _bullets(self.proven),
            "## What is not": _bullets(self.not_proven),
        }
        return "\n\n".join(f"{heading}\n\n{body}" for heading, body in sections.items() if body)


def _bullets(items: tuple[str, ...]) -> str:
    return "\n".join(f"- {item}" for item in items)
