#!/usr/bin/env bash
# The recipe as MLCommons published it, for both variants, with only the changes that are necessary to run it:
# https://github.com/mlcommons/mobile_models/blob/main/v1_0/tflite/README.md
#
# Usage: python -m runner shell --model-dir DIR --out OUT < docs/recipe.sh
# Inputs: TF_MODEL_DIR and TFLITE_MODEL_DIR, which `shell` sets.
set -euo pipefail

# The recipe edits pipeline.config in the model directory, which is read-only here. So this script edits copies of the
# configs, in a folder with links to the checkpoints, and the published lines use that folder.
edited=${TFLITE_MODEL_DIR}/edited
for variant in fp32 uint8; do
    mkdir -p "${edited}/${variant}"
    ln -sf "${TF_MODEL_DIR}/${variant}"/model.ckpt-400000.* "${edited}/${variant}/"
    sed 's/score_threshold: .*/score_threshold: 0.3/' "${TF_MODEL_DIR}/${variant}/pipeline.config" \
        >"${edited}/${variant}/pipeline.config"
done
TF_MODEL_DIR=${edited}

# Changed: no path before the script, because it is on PATH; quotes, for folder names that contain a blank.
export_tflite_ssd_graph.py --input_type image_tensor --pipeline_config_path "${TF_MODEL_DIR}"/fp32/pipeline.config --trained_checkpoint_prefix "${TF_MODEL_DIR}"/fp32/model.ckpt-400000 --output_directory "${TFLITE_MODEL_DIR}"/fp32/ --add_postprocessing_op=true --use_regular_nms=true --max_detections=10

# Changed: /path/to is the folder that the previous line wrote to.
bazel run -c opt tensorflow/lite/toco:toco -- --input_file="${TFLITE_MODEL_DIR}"/fp32/tflite_graph.pb --output_file="${TFLITE_MODEL_DIR}"/fp32/mobiledet.tflite --input_shapes=1,320,320,3 --input_arrays=normalized_input_image_tensor --output_arrays='TFLite_Detection_PostProcess','TFLite_Detection_PostProcess:1','TFLite_Detection_PostProcess:2','TFLite_Detection_PostProcess:3'  --inference_type=FLOAT --allow_custom_ops

export_tflite_ssd_graph.py --input_type image_tensor --pipeline_config_path "${TF_MODEL_DIR}"/uint8/pipeline.config --trained_checkpoint_prefix "${TF_MODEL_DIR}"/uint8/model.ckpt-400000 --output_directory "${TFLITE_MODEL_DIR}"/uint8/ --add_postprocessing_op=true --use_regular_nms=true --max_detections=10

bazel run -c opt tensorflow/lite/toco:toco -- --input_file="${TFLITE_MODEL_DIR}"/uint8/tflite_graph.pb --output_file="${TFLITE_MODEL_DIR}"/uint8/mobiledet_qat.tflite --input_shapes=1,320,320,3 --input_arrays=normalized_input_image_tensor --output_arrays='TFLite_Detection_PostProcess','TFLite_Detection_PostProcess:1','TFLite_Detection_PostProcess:2','TFLite_Detection_PostProcess:3'  --inference_type=QUANTIZED_UINT8 --allow_custom_ops --mean_values=128 --std_values=128
