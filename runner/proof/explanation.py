"""The result of ``explain``, and its formatting as a Markdown page."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command that can be pasted, with a title."""

    title: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """The explanation of a file; each string is one or more sentences in Markdown."""

    title: str
    what: tuple[str, ...]
    made_from: tuple[str, ...] = ()
    commands: tuple[Command, ...] = ()
    proven: tuple[str, ...] = ()
    not_proven: tuple[str, ...] = ()

    def as_markdown(self) -> str:
        """Return the explanation as a Markdown page."""
        commands = [f"{command.title}\n\n```sh\n{command.text}\n```" for command in self.commands]
        sections = {
            f"# {self.title}": "\n\n".join(self.what),
            "## Made from": _bullets(self.made_from),
            "## Commands": "\n\n".join(commands),
            "## What is proven": _bullets(self.proven),
            "## What is not proven": _bullets(self.not_proven),
        }
        return "\n\n".join(f"{heading}\n\n{body}" for heading, body in sections.items() if body)


def _bullets(items: tuple[str, ...]) -> str:
    return "\n".join(f"- {item}" for item in items)
