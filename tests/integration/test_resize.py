"""Our bilinear resize equals TensorFlow 1.15's, bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from runner.evaluation.resize import resize_bilinear

if TYPE_CHECKING:
    from pathlib import Path

    from runner.engines.base import Session

pytestmark = pytest.mark.any_engine

RESIZE = """
import sys
import numpy as np
import tensorflow as tf

images, sizes, resized = sys.argv[1:]
with np.load(images) as archive, tf.Session() as session:
    given = [archive[name] for name in archive.files]
    made = [
        session.run(tf.image.resize_bilinear(image[None].astype(np.float32), tuple(size)))[0]
        for image, size in zip(given, np.load(sizes))
    ]
np.savez(resized, *made)
"""
SIZES = (
    ((480, 640), (320, 320)),  # as most of COCO
    ((427, 640), (320, 320)),
    ((640, 425), (300, 300)),
    ((128, 128), (128, 128)),
    ((33, 50), (320, 320)),
    ((1, 7), (5, 3)),
    ((3001, 1999), (320, 320)),
)


def test_it_equals_tensorflow_bit_for_bit(session: Session, workspace: Path) -> None:
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (*size, 3), np.uint8) for size, _ in SIZES]
    given, sizes, resized = (workspace / f"resize-{name}" for name in ("in.npz", "sizes.npy", "out.npz"))
    np.savez(given, *pictures)
    np.save(sizes, [size for _, size in SIZES])
    done = session.run("python", "-c", RESIZE, str(given), str(sizes), str(resized))
    assert done.exit_code == 0, done.stderr[-20:]
    with np.load(resized) as archive:
        for name, picture, (_, wanted) in zip(archive.files, pictures, SIZES, strict=True):
            assert np.array_equal(resize_bilinear(picture, *wanted), archive[name]), (picture.shape, wanted)
