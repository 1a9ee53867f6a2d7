# shellcheck shell=bash
# Let bash run the export scripts by their path, as tensorflow/models' instructions do.
#
# Usage: every bash of the toolchain reads this file at startup, because BASH_ENV points to it. An interactive bash
# ignores BASH_ENV; the `shell` command passes this file to it.
# Inputs: the commands in this folder, which is on PATH.
#
# In the verified tree the two files are not executable and have no `#!`. bash looks for a function of that name
# before it looks for a file, even if the name contains a slash.
object_detection/export_tflite_ssd_graph.py() { export_tflite_ssd_graph.py "$@"; }
object_detection/export_inference_graph.py() { export_inference_graph.py "$@"; }
