#!/usr/bin/env python3
"""Export a detection checkpoint for inference: the detection API's own script, with a strict command line."""

from _export import run_strictly
from absl import flags

flags.DEFINE_bool(
    "add_postprocessing_op", True, "No flag of this script; published command lines give it all the same."
)

if __name__ == "__main__":
    run_strictly("object_detection.export_inference_graph")
