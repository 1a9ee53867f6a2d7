"""Known failures of the toolchain's scripts: the pattern in the output, the cause and the remedy.

Most of these problems are detected before a script runs. This table covers the others: problems of the
commands `export` and `toco`, which accept any model, and problems that only appear while a script runs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from runner.host.disk import WORDS as FULL_DISK_WORDS

MODELS_ISSUES: Final = "https://github.com/tensorflow/models/issues"
TENSORFLOW_ISSUES: Final = "https://github.com/tensorflow/tensorflow/issues"


@dataclass(frozen=True, kw_only=True)
class KnownFailure:
    """A known failure. ``pattern`` is searched for in each output line; ``thread`` is an issue about it."""

    pattern: re.Pattern[str]
    cause: str
    remedy: str
    thread: str | None = None

    @property
    def tip(self) -> str:
        """The remedy, with a link to the issue if there is one."""
        return f"{self.remedy} (see {self.thread})" if self.thread else self.remedy


CHECKPOINT_FAILURES: Final = (
    KnownFailure(
        pattern=re.compile(
            r"not found in checkpoint files \S+\.(index|meta|data-\d{5}-of-\d{5})$"
            r"|Unable to open table file \S+\.data-\d{5}-of-\d{5}:"
        ),
        cause="the checkpoint was given as one of its files, not as the prefix",
        remedy="use the common prefix of its files: model.ckpt-400000, without .index, .meta or .data-…",
        thread=f"{MODELS_ISSUES}/4783",
    ),
    KnownFailure(
        pattern=re.compile(r"Key \S+_quant/(min|max) not found in checkpoint"),
        cause="the config needs quantization ranges, but the checkpoint has none: it is a float checkpoint",
        remedy="use the float model's own config (without graph_rewriter), or the checkpoint of "
        "quantization-aware training; the zoo's quantized archives of 2018_07_03 lack the ranges; use those "
        "of 2018_07_18",
        thread=f"{MODELS_ISSUES}/5089",
    ),
    KnownFailure(
        # TensorFlow first reports the missing object graph, and then the variable that is really missing.
        pattern=re.compile(
            r"(Key (?!_CHECKPOINTABLE_OBJECT_GRAPH)\S+|Tensor name \S+) not found in checkpoint"
        ),
        cause="the model in the config has variables that the checkpoint does not have",
        remedy="use the pipeline.config that came with the checkpoint",
        thread=f"{MODELS_ISSUES}/9118",
    ),
    KnownFailure(
        pattern=re.compile(r"Assign requires shapes of both tensors to match"),
        cause="the checkpoint's variables have other shapes than the model in the config",
        remedy="use the pipeline.config that came with the checkpoint; usually num_classes differs",
    ),
    KnownFailure(
        pattern=re.compile(
            r"DataLossError|not an sstable|block checksum mismatch|Checksum does not match"
            r"|OutOfRangeError: Read less bytes than requested"
        ),
        cause="the checkpoint is damaged or incomplete: its checksums do not match",
        remedy="download or copy it again, and unpack the complete archive again",
    ),
    KnownFailure(
        pattern=re.compile(r"Input checkpoint '.*' doesn't exist!"),
        cause="there is no checkpoint with this prefix",
        remedy="check the names in the folder: the prefix is the name of an .index file without .index",
    ),
)

CONFIG_FAILURES: Final = (
    KnownFailure(
        pattern=re.compile(r'has no field named "batch_norm_trainable"'),
        cause="the config has batch_norm_trainable, which later versions of the detection API do not support",
        remedy="remove that line in a copy of the config; it only affects training (the command `export` "
        "removes it automatically)",
        thread=f"{MODELS_ISSUES}/4066",
    ),
    KnownFailure(
        pattern=re.compile(r'Message type "\S+" has no field named'),
        cause="the config was written for another version of the detection API",
        remedy="if the field has no effect on inference, remove it in a copy of the config",
        thread=f"{MODELS_ISSUES}/7399",
    ),
    KnownFailure(
        pattern=re.compile(r"ValueError: \S+ is not supported for tf version 1\."),
        cause="the pinned tensorflow/models has no such feature extractor for TensorFlow 1",
        remedy="use `--models pypi`, which has a later commit, 3564634; names that end in _keras belong to "
        "the TensorFlow 2 detection API and its own export script",
        thread=f"{MODELS_ISSUES}/8456",
    ),
    KnownFailure(
        pattern=re.compile(
            r"No module named '?tensorflow\.(tools\.graph_transforms|contrib)"
            r"|ValueError: \S+ is not supported( for tf version 2)?\. See `model_builder"
        ),
        cause="the script ran on TensorFlow 2, which lacks APIs that the script needs",
        remedy="run it in this toolchain, which has TensorFlow 1.15: `export`, `exec` or `shell`",
        thread=f"{MODELS_ISSUES}/8456",
    ),
    KnownFailure(
        pattern=re.compile(r"Only ssd models are supported in tflite"),
        cause="the model in the config is not an SSD, and this export supports only SSDs",
        remedy="choose an archive whose config has model { ssd { … } }",
    ),
    KnownFailure(
        pattern=re.compile(r"Only fixed_shape_resizer ?is supported with tflite"),
        cause="the model accepts images of varying shape, which this export does not support",
        remedy="choose a model with a fixed_shape_resizer, or train it with one",
    ),
    KnownFailure(
        pattern=re.compile(r"Number of feature maps is expected to equal the length of `num_anchors"),
        cause="the config's anchor_generator is for another number of feature maps than the network has",
        remedy="feature_extractor and anchor_generator must match: take both from the same config",
    ),
    KnownFailure(
        pattern=re.compile(r"max_detections_per_class should be no greater than max_total_detections"),
        cause="the config allows more detections per class than in total",
        remedy="raise max_total_detections in a copy of the config; --max_detections sets the number of "
        "detections in the file",
    ),
)

TOCO_FAILURES: Final = (
    KnownFailure(
        pattern=re.compile(r"Array TFLite_Detection_PostProcess\S* does not have MinMax information"),
        cause="the detection operator of the graph lacks the attribute "
        "_support_output_type_float_in_quantized_op, so TOCO needs quantization ranges for its outputs",
        remedy="convert the graph exactly as export_tflite_ssd_graph.py (`export`) wrote it, with the "
        "attribute; another program may have removed it",
    ),
    KnownFailure(
        pattern=re.compile(r"lack(s|ing) min/?max( data)?"),
        cause="the quantization range of an array is unknown: the graph has no FakeQuant node for it",
        remedy="convert a graph from quantization-aware training, or use --inference_type=FLOAT; arbitrary "
        "values of --default_ranges_min and --default_ranges_max give useless detections",
        thread=f"{TENSORFLOW_ISSUES}/24663",
    ),
    KnownFailure(
        pattern=re.compile(r"disable this error with --allow_custom_ops"),
        cause="the graph has a custom operator that is not built into TensorFlow Lite, such as the "
        "post-processing of detections",
        remedy="use --allow_custom_ops; the interpreter that runs the model must support the operator",
        thread=f"{TENSORFLOW_ISSUES}/29758",
    ),
    KnownFailure(
        pattern=re.compile(r"Op type not registered 'TFLite_Detection_PostProcess'"),
        cause="TensorFlow cannot run the post-processing operator: only TensorFlow Lite has it",
        remedy="convert the graph with `toco` and run the .tflite, or remove that node first",
        thread=f"{TENSORFLOW_ISSUES}/29758",
    ),
    KnownFailure(
        pattern=re.compile(r"toco_from_protos\b.*not found"),
        cause="tflite_convert calls toco_from_protos, which is not on PATH",
        remedy="do not replace the toolchain's PATH, only extend it: PATH=…:$PATH",
        thread=f"{TENSORFLOW_ISSUES}/40121",
    ),
    KnownFailure(
        pattern=re.compile(r"one of the arguments --graph_def_file .* is required"),
        cause="flags of the native TOCO were given to tflite_convert (which pip also installs as toco)",
        remedy="call this toolchain's `toco`, which has the native flags",
        thread=f"{TENSORFLOW_ISSUES}/23550",
    ),
)

FULL_DISK: Final = KnownFailure(
    pattern=re.compile("|".join(FULL_DISK_WORDS), re.IGNORECASE),
    cause="the disk is full",
    remedy="free some space, or choose another --out",
)

MACHINE_FAILURES: Final = (
    FULL_DISK,  # first, because TensorFlow may report a full disk as a ResourceExhaustedError
    KnownFailure(
        pattern=re.compile(
            r"^MemoryError\b|std::bad_alloc|OOM when allocating|Cannot allocate memory|ResourceExhaustedError"
        ),
        cause="there was not enough memory",
        remedy="raise --memory-mib, close other programs, or convert one variant at a time",
    ),
    KnownFailure(
        pattern=re.compile(r"Permission ?[Dd]enied|PermissionError|Read-only file system"),
        cause="a file could not be read or written; see the last lines for the reason",
        remedy="check that the model is readable, and write results to --out",
    ),
    KnownFailure(
        pattern=re.compile(r"(NotFoundError|FileNotFoundError)\b.*No such file or directory"),
        cause="a file that the script tried to read does not exist in the toolchain",
        remedy="check the path: the toolchain can only access the folders that are given to the command",
    ),
)

STRANGE_TOOLCHAIN: Final = (
    KnownFailure(
        pattern=re.compile(
            r"Descriptors cannot (not )?be created directly|Cannot convert a symbolic Tensor"
            r"|No module named '?(nets|tf_slim|object_detection)\b|cannot import name '?\w+_pb2"
        ),
        cause="the packages or the models tree are not the pinned ones",
        remedy="`doctor` shows which toolchain this is; `image` builds the pinned one",
        thread=f"{MODELS_ISSUES}/1842",
    ),
)

KNOWN_FAILURES: Final = (
    *CHECKPOINT_FAILURES,
    *CONFIG_FAILURES,
    *TOCO_FAILURES,
    *STRANGE_TOOLCHAIN,
    *MACHINE_FAILURES,
)


def explain_failure(lines: tuple[str, ...]) -> KnownFailure | None:
    """Return the first known failure, in the order of the table, whose pattern matches one of the lines."""
    for failure in KNOWN_FAILURES:
        if any(failure.pattern.search(line) for line in lines):
            return failure
    return None
