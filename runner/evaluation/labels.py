"""The names of a detector's classes, from its recipe, COCO, a text file or a label map (``.pbtxt``)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runner.errors import UsageError
from runner.evaluation.origin import find_origin

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runner.evaluation.detector import Detector

COCO_LABELS: Final = Path(__file__).with_name("coco_labels.txt")
"""COCO's 80 names in the order of their ids, 1 to 90; the lines of the ten unused ids are empty."""
COCO_CLASSES: Final = 90


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Class names, keyed by class id, starting at 1. ``source`` states where the names come from."""

    source: str
    names: Mapping[int, str]

    def name_of(self, class_id: int) -> str:
        """Return the name of a class, or ``class N`` if it has none."""
        return self.names.get(class_id) or f"class {class_id}"


def labels_of(detector: Detector, recipe: str | None) -> Labels:
    """Return the class names in a file's recipe, else COCO's names if there are 90 classes, else no names.

    ``recipe`` is a name or a folder. If it is None, `runner.evaluation.origin.find_origin` searches for the
    recipe.

    Raises:
        UsageError: the number of labels in the given recipe is not the detector's number of classes.
    """
    origin, count = find_origin(detector, recipe), detector.class_count
    stated = () if origin is None else origin.recipe.labels
    if origin is not None and len(stated) == count:
        return Labels(source=f"recipe {origin.recipe.name}", names=dict(enumerate(stated, start=1)))
    if recipe is not None:
        raise UsageError(
            f"the recipe {recipe} has {len(stated)} labels, but {detector.path} has {count} classes",
            tip="pass the names with --labels",
        )
    if count == COCO_CLASSES:
        return Labels(source="COCO", names=_read_lines(COCO_LABELS, count))
    return Labels(source="numbers", names={})


def read_labels(path: Path, class_count: int) -> Labels:
    """Read names from a label map, if the file ends with ``.pbtxt``, or from a text with one name per line.

    The first line of a text is class 1, and an empty line is a class without a name.

    Raises:
        UsageError: the file cannot be read, is malformed, or is for another number of classes.
    """
    read = _read_label_map if path.suffix == ".pbtxt" else _read_lines
    return Labels(source=str(path), names=read(path, class_count))


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as problem:
        raise UsageError(f"cannot read the labels {path}: {problem.strerror}") from problem
    except UnicodeDecodeError as problem:
        line = problem.object[: problem.start].count(b"\n") + 1
        raise UsageError(f"{path}, line {line}: not UTF-8 text") from problem


def _read_lines(path: Path, class_count: int) -> dict[int, str]:
    names = [line.strip() for line in _text(path).split("\n")]
    if not names[-1]:
        del names[-1]  # the empty text after the last line break
    if len(names) != class_count:
        line = min(len(names), class_count) + 1
        what = "too many labels" if len(names) > class_count else "too few labels"
        raise UsageError(
            f"{path}, line {line}: {what}: {len(names)} labels for {class_count} classes of the detector",
            tip="write one label per line, starting with class 1, without a line for the background",
        )
    return {class_id: name for class_id, name in enumerate(names, start=1) if name}


# --- label maps -------------------------------------------------------------------------------------------

_TOKEN: Final = re.compile(
    r"""\s+ | \#[^\n]*
    | (?P<string> "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*' )
    | (?P<word> [\w.+-]+ )
    | (?P<mark> . )""",
    re.VERBOSE,
)


@dataclass(frozen=True, kw_only=True)
class _Token:
    text: str
    kind: str
    line: int


@dataclass(frozen=True, kw_only=True)
class _Item:
    line: int
    fields: dict[str, _Token] = field(default_factory=dict)


def _read_label_map(path: Path, class_count: int) -> dict[int, str]:
    names: dict[int, str] = {}
    for item in _items(path):
        name, number = item.fields.get("display_name") or item.fields.get("name"), item.fields.get("id")
        if name is None or number is None:
            raise UsageError(f"{path}, line {item.line}: this item has no {'id' if name else 'name'}")
        class_id = int(number.text) if re.fullmatch(r"[0-9]{1,9}", number.text) else 0
        if not 1 <= class_id <= class_count:
            raise UsageError(
                f"{path}, line {number.line}: id {number.text} is not one of the detector's classes, "
                f"1 to {class_count}"
            )
        if class_id in names:
            raise UsageError(f"{path}, line {number.line}: id {class_id} occurs twice")
        names[class_id] = _unquoted(name.text) if name.kind == "string" else name.text
    if not names:
        raise UsageError(f"{path} has no labels", tip="a label map has items: item { id: 1 name: 'person' }")
    return names


def _items(path: Path) -> Iterator[_Item]:
    tokens = _tokens(path)
    for token in tokens:
        if token.text != "item":
            raise UsageError(f"{path}, line {token.line}: expected `item`, found {token.text}")
        item = _Item(line=token.line)
        _open(path, tokens, token)
        while (name := _next(path, tokens, item.line)).text != "}":
            value = _next(path, tokens, item.line)
            if value.text == ":":
                value = _next(path, tokens, item.line)
            if name.kind != "word" or (value.kind == "mark" and value.text != "{"):
                raise UsageError(f"{path}, line {value.line}: expected `name: value` at {value.text}")
            if value.text == "{":
                _skip_message(path, tokens, item.line)
            else:
                item.fields[name.text] = value
        yield item


def _open(path: Path, tokens: Iterator[_Token], item: _Token) -> None:
    token = _next(path, tokens, item.line)
    if token.text == ":":
        token = _next(path, tokens, item.line)
    if token.text != "{":
        raise UsageError(f"{path}, line {token.line}: expected {{ after `item`, found {token.text}")


def _skip_message(path: Path, tokens: Iterator[_Token], line: int) -> None:
    depth = 1
    while depth:
        depth += {"{": 1, "}": -1}.get(_next(path, tokens, line).text, 0)


def _next(path: Path, tokens: Iterator[_Token], line: int) -> _Token:
    token = next(tokens, None)
    if token is None:
        raise UsageError(f"{path}, line {line}: this item has no end: a }} is missing")
    return token


def _tokens(path: Path) -> Iterator[_Token]:
    """Yield the tokens, without the commas and semicolons that may follow a field."""
    text = _text(path)
    line = 1
    for found in _TOKEN.finditer(text):
        if found.lastgroup is not None and found.group() not in {",", ";"}:
            yield _Token(text=found.group(), kind=found.lastgroup, line=line)
        line += found.group().count("\n")


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1])
