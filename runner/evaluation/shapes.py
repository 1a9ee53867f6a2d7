"""Draw the images of the `shapes` recipe: circles, squares and triangles on noisy, cluttered backgrounds.

An image depends only on the seed and its number, not on how many images are drawn. Everything is integer
arithmetic on numbers from `numpy.random.RandomState`, whose streams never change, so the pixels are the same
on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.int64]

SIDE = 128
LABELS = ("circle", "square", "triangle")
MOST_OBJECTS = 4
SMALLEST, LARGEST = 24, 64
# Limits for the overlap of two boxes: the IoU, and the hidden part of the smaller box. An object of which
# more is hidden cannot be recognised.
MOST_IOU = 0.3
MOST_HIDDEN = 0.4
# An object differs by at least this much, in one colour channel, from the mean of the pixels that it covers.
LEAST_CONTRAST = 48
SUBPIXELS = 4
PLACES_TRIED = 50


@dataclass(frozen=True, kw_only=True)
class Shape:
    """An object in an image: its label and its box, in pixels."""

    label: str
    left: int
    top: int
    side: int


@dataclass(frozen=True, kw_only=True)
class DrawnImage:
    """A drawn image, uint8 [SIDE, SIDE, 3], and its objects."""

    pixels: NDArray[np.uint8]
    shapes: tuple[Shape, ...]


def draw(seed: int, number: int) -> DrawnImage:
    """Draw image ``number`` of ``seed``: one to four objects, later ones over earlier ones."""
    random = np.random.RandomState([seed, number])
    pixels = _background(random)
    for _ in range(random.randint(2, 7)):
        _draw_line(pixels, random)
    shapes: list[Shape] = []
    for _ in range(random.randint(1, MOST_OBJECTS + 1)):
        shape = _place(shapes, random)
        if shape is not None:
            _draw_shape(pixels, shape, random)
            shapes.append(shape)
    noise = random.randint(0, 32)
    for _ in range(2):
        pixels += random.randint(-noise, noise + 1, size=pixels.shape)
    return DrawnImage(pixels=np.clip(pixels, 0, 255).astype(np.uint8), shapes=tuple(shapes))


def _background(random: np.random.RandomState) -> Pixels:
    """Blend one random colour into another, from corner to corner."""
    first, second = random.randint(0, 256, size=(2, 3))
    across, down = random.randint(0, 2, size=2)
    ramp = np.arange(SIDE)
    columns = ramp[::-1] if across else ramp
    rows = ramp[::-1] if down else ramp
    blend = (columns[None, :] + rows[:, None])[:, :, None]
    whole = 2 * (SIDE - 1)
    pixels: Pixels = (first * (whole - blend) + second * blend) // whole
    return pixels


def _draw_line(pixels: Pixels, random: np.random.RandomState) -> None:
    """Draw a straight line, one to three pixels wide, between two random points."""
    (x0, y0), (x1, y1) = random.randint(0, SIDE, size=(2, 2))
    colour = random.randint(0, 256, size=3)
    width = random.randint(1, 4)
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    along = (x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)
    across = (x - x0) * (y1 - y0) - (y - y0) * (x1 - x0)
    length = (x1 - x0) ** 2 + (y1 - y0) ** 2
    pixels[(along >= 0) & (along <= length) & (4 * across**2 <= width**2 * length)] = colour


def _place(others: list[Shape], random: np.random.RandomState) -> Shape | None:
    """Choose a random object whose box hides little of ``others``; None after PLACES_TRIED tries."""
    label = LABELS[random.randint(len(LABELS))]
    for _ in range(PLACES_TRIED):
        side = int(random.randint(SMALLEST, LARGEST + 1))
        left, top = (int(place) for place in random.randint(0, SIDE - side + 1, size=2))
        shape = Shape(label=label, left=left, top=top, side=side)
        if all(_is_apart(shape, other) for other in others):
            return shape
    return None


def _is_apart(one: Shape, other: Shape) -> bool:
    width = min(one.left + one.side, other.left + other.side) - max(one.left, other.left)
    height = min(one.top + one.side, other.top + other.side) - max(one.top, other.top)
    both = max(width, 0) * max(height, 0)
    union = one.side**2 + other.side**2 - both
    return both <= MOST_IOU * union and both <= MOST_HIDDEN * min(one.side, other.side) ** 2


def _draw_shape(pixels: Pixels, shape: Shape, random: np.random.RandomState) -> None:
    """Fill a shape with a colour that differs clearly from the mean of the pixels it covers."""
    below = pixels[shape.top : shape.top + shape.side, shape.left : shape.left + shape.side]
    mean = below.sum(axis=(0, 1)) // shape.side**2
    colour = random.randint(0, 256, size=3)
    while abs(colour - mean).max() < LEAST_CONTRAST:
        colour = random.randint(0, 256, size=3)
    whole = SUBPIXELS**2
    cover = _coverage(shape)[:, :, None]
    below[:] = (below * (whole - cover) + colour * cover) // whole


def _coverage(shape: Shape) -> Pixels:
    """Count, for each pixel of the box, how many of its SUBPIXELS² points are inside the shape."""
    samples = SUBPIXELS * shape.side
    # The unit is half a subpixel, so the box is 2 * samples wide and the subpixels' centres have odd
    # coordinates. x starts at the middle of the box, y at its upper edge.
    points = 2 * np.arange(samples) + 1
    x, y = points[None, :] - samples, points[:, None]
    if shape.label == "circle":
        inside = x**2 + (y - samples) ** 2 <= samples**2
    elif shape.label == "triangle":
        inside = 2 * abs(x) <= y
    else:
        inside = np.ones((samples, samples), dtype=bool)
    grid = (shape.side, SUBPIXELS, shape.side, SUBPIXELS)
    cover: Pixels = inside.reshape(grid).sum(axis=(1, 3))
    return cover
