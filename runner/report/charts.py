"""The geometry of the charts of a page; the template makes SVG of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from runner.report.data import Detection, Ends, Layer

COLOURS: Final = ("#1f77d0", "#d1495b", "#2e8b57", "#b5651d", "#7b4fb5", "#00808a", "#a8327d", "#6b7a00")
"""By class; white text on each has a contrast of at least 4.5."""
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
    """A common axis for ranges: from 0 to 100 for ``low`` to ``high``."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Return the place of a value."""
        return WIDTH * (value - self.low) / ((self.high - self.low) or 1.0)

    def width(self, ends: Ends) -> float:
        """Return the width of a range."""
        return max(0.4, self.at(ends[1]) - self.at(ends[0]))


def common_scale(ranges: Iterable[Ends]) -> Scale:
    """Return an axis on which all these ranges lie."""
    ends = [end for each in ranges for end in each] or [0.0]
    return Scale(low=min(*ends, 0.0), high=max(*ends, 0.0))


@dataclass(frozen=True, kw_only=True)
class Tag:
    """A box in an image of 100 by 100 with the place of its number."""

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
    """Return the boxes of the detections in an image, those with the best scores last, so on top.

    What reaches outside of the image is cut off.
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
