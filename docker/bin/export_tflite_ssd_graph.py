#!/usr/bin/env python3
"""Run the detection API's ``export_tflite_ssd_graph`` with strict command-line parsing."""

from _export import run_strictly
from absl import flags

flags.DEFINE_string(
    "input_type", "image_tensor", "Ignored: not a flag of this script, but published command lines use it."
)

if __name__ == "__main__":
    run_strictly("object_detection.export_tflite_ssd_graph")
