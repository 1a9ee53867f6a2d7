"""Compute the geometry of the charts on a page; the template draws them as SVG."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from runner.report.data import Detection, Ends, Layer

COLOURS: Final = ("#1f77d0", "#d1495b", "#2e8b57", "#b5651d", "#7b4fb5", "#00808a", "#a8327d", "#6b7a00")
"""The colours of classes; white text on each of them has a contrast of at least 4.5."""
HEIGHT: Final = 100.0
WIDTH: Final = 100.0


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A rectangle; ``title`` is shown when the pointer is on it."""

    x: float
    y: float
    width: float
    height: float
    title: str
    is_worst: bool


def depth_bars(layers: Sequence[Layer], worst: Iterable[Layer], unit: str) -> list[Bar]:
    """Return a bar for each layer, from the input to the detections, one unit wide; the highest is 100."""
    top = max((it.rms for it in layers), default=0.0) or 1.0
    marked = {it.position for it in worst}
    return [
        Bar(
            x=place + 0.1,
            y=HEIGHT - HEIGHT * it.rms / top,
            width=0.8,
            height=HEIGHT * it.rms / top,
            title=f"{it.name}: {it.rms:.3g} {unit}",
            is_worst=it.position in marked,
        )
        for place, it in enumerate(layers)
    ]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """An axis that several ranges share; it maps ``low`` to 0 and ``high`` to 100."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Return the position of a value on the axis."""
        return WIDTH * (value - self.low) / ((self.high - self.low) or 1.0)

    def width(self, ends: Ends) -> float:
        """Return the width of a range on the axis."""
        return max(0.4, self.at(ends[1]) - self.at(ends[0]))


def common_scale(ranges: Iterable[Ends]) -> Scale:
    """Return an axis on which all these ranges lie."""
    ends = [end for each in ranges for end in each] or [0.0]
    return Scale(low=min(*ends, 0.0), high=max(*ends, 0.0))


@dataclass(frozen=True, kw_only=True)
class Tag:
    """A detected box, and the label with its number, in an image of 100 by 100."""

    x: float
    y: float
    width: float
    height: float
    tag_x: float
    tag_y: float
    tag_width: float
    text: str
    colour: str


TAG_HEIGHT: Final = 8.0


def tags(detections: Sequence[Detection]) -> list[Tag]:
    """Return the boxes to draw for the detections in an image, clipped to the image.

    The boxes with the best scores come last, so that they are drawn on top.
    """
    return [_tag(it) for it in reversed(detections)]


def _tag(found: Detection) -> Tag:
    box, text = found.box, str(found.row)
    left, right = sorted((_inside(box.xmin), _inside(box.xmax)))
    top, bottom = sorted((_inside(box.ymin), _inside(box.ymax)))
    width = 3.0 + 4.2 * len(text)
    return Tag(
        x=left,
        y=top,
        width=right - left,
        height=bottom - top,
        tag_x=min(left, WIDTH - width),
        tag_y=min(top, HEIGHT - TAG_HEIGHT),
        tag_width=width,
        text=text,
        colour=COLOURS[found.class_id % len(COLOURS)],
    )


def _inside(relative: float) -> float:
    return min(max(100 * relative, 0.0), 100.0)
