#!/usr/bin/env bash
# Smoke test at the end of the build of a toolchain without the detection API: convert a graph of one operator.
#
# Usage: smoke-test.sh VERSION
# Inputs: the expected TensorFlow version; the toolchain's commands on PATH.
set -euo pipefail

# Byte-compile the modules that TOCO imports now, because .pyc files cannot be written later.
version=$(env -u PYTHONDONTWRITEBYTECODE python -c '
import tensorflow
from tensorflow.lite.toco import model_flags_pb2, toco_flags_pb2
print(tensorflow.__version__)')
if [[ $version != "$1" ]]; then
    echo "smoke test: TensorFlow is version $version, expected $1"
    exit 1
fi

folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
cat > "$folder/graph.pbtxt" <<'GRAPH'
node {
  name: "in" op: "Placeholder"
  attr { key: "dtype" value { type: DT_FLOAT } }
  attr { key: "shape" value { shape { dim { size: 1 } dim { size: 8 } } } }
}
node { name: "out" op: "Relu6" input: "in" attr { key: "T" value { type: DT_FLOAT } } }
GRAPH
toco --input_file="$folder/graph.pbtxt" --output_file="$folder/model.tflite" \
    --input_arrays=in --output_arrays=out
[[ -s $folder/model.tflite ]]
echo "smoke test: TOCO of TensorFlow $version works"
