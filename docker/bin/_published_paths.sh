# shellcheck shell=bash
# Let bash run the export scripts by their path, as tensorflow/models' instructions do.
#
# Usage: every bash of the toolchain reads this file when it starts. BASH_ENV names it; an interactive bash, which
# ignores BASH_ENV, gets it from `shell`.
# Inputs: the commands in this folder, which is on PATH.
#
# In the verified tree the two files are not executable and have no `#!`. bash looks for a function before it looks
# for a file, even if the name has a slash.
object_detection/export_tflite_ssd_graph.py() { export_tflite_ssd_graph.py "$@"; }
object_detection/export_inference_graph.py() { export_inference_graph.py "$@"; }
