#!/usr/bin/env python3
"""Freeze an SSD checkpoint for TFLite: the detection API's own script, with a strict command line."""

from _export import run_strictly
from absl import flags

flags.DEFINE_string(
    "input_type", "image_tensor", "No flag of this script; published command lines give it all the same."
)

if __name__ == "__main__":
    run_strictly("object_detection.export_tflite_ssd_graph")
