"""What the toolchain's scripts print when they fail in a known way: pattern, cause, remedy.

Most of it is refused by name before a script runs; this is for what gets through, for `export` and `toco` on
any model, and for what only a running script can find out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

MODELS_ISSUES: Final = "https://github.com/tensorflow/models/issues"
TENSORFLOW_ISSUES: Final = "https://github.com/tensorflow/tensorflow/issues"


@dataclass(frozen=True, kw_only=True)
class KnownFailure:
    """One way to fail: ``pattern`` is searched in each line, ``thread`` is where users report it."""

    pattern: re.Pattern[str]
    cause: str
    remedy: str
    thread: str | None = None

    @property
    def tip(self) -> str:
        """Say what to do, and where others met it."""
        return f"{self.remedy} (others met it: {self.thread})" if self.thread else self.remedy


CHECKPOINT_FAILURES: Final = (
    KnownFailure(
        pattern=re.compile(
            r"not found in checkpoint files \S+\.(index|meta|data-\d{5}-of-\d{5})$"
            r"|Unable to open table file \S+\.data-\d{5}-of-\d{5}:"
        ),
        cause="the checkpoint was named by one of its files",
        remedy="name it by the prefix they share: model.ckpt-400000, without .index, .meta or .data-…",
        thread=f"{MODELS_ISSUES}/4783",
    ),
    KnownFailure(
        pattern=re.compile(r"Key \S+_quant/(min|max) not found in checkpoint"),
        cause="the config asks for quantization ranges and the checkpoint has none: it is a float one",
        remedy="use the float model's own config (it has no graph_rewriter), or the checkpoint of "
        "quantization-aware training; the zoo's quantized archives of 2018_07_03 lack the ranges, those of "
        "2018_07_18 replace them",
        thread=f"{MODELS_ISSUES}/5089",
    ),
    KnownFailure(
        # TensorFlow asks for the object graph on its way to saying what it really misses.
        pattern=re.compile(
            r"(Key (?!_CHECKPOINTABLE_OBJECT_GRAPH)\S+|Tensor name \S+) not found in checkpoint"
        ),
        cause="the model that the config describes has variables which the checkpoint does not hold",
        remedy="use the pipeline.config that came with the checkpoint",
        thread=f"{MODELS_ISSUES}/9118",
    ),
    KnownFailure(
        pattern=re.compile(r"Assign requires shapes of both tensors to match"),
        cause="the checkpoint's variables have other shapes than the model that the config describes",
        remedy="use the pipeline.config that came with the checkpoint; most often num_classes differs",
    ),
    KnownFailure(
        pattern=re.compile(
            r"DataLossError|not an sstable|block checksum mismatch|Checksum does not match"
            r"|OutOfRangeError: Read less bytes than requested"
        ),
        cause="the checkpoint is damaged: its own checksums do not agree with its bytes",
        remedy="download or copy it again, and unpack the archive again; was it all there?",
    ),
    KnownFailure(
        pattern=re.compile(r"Input checkpoint '.*' doesn't exist!"),
        cause="there is no checkpoint with this prefix",
        remedy="look at the names of the .index files beside it: a prefix is such a name without .index",
    ),
)

CONFIG_FAILURES: Final = (
    KnownFailure(
        pattern=re.compile(r'has no field named "batch_norm_trainable"'),
        cause="the config says batch_norm_trainable, which later versions of the detection API do not know",
        remedy="remove that line in a copy; it only told a training run what to do (`export` does so itself)",
        thread=f"{MODELS_ISSUES}/4066",
    ),
    KnownFailure(
        pattern=re.compile(r'Message type "\S+" has no field named'),
        cause="the config was written for another version of the detection API",
        remedy="if the field has no effect on inference, remove it in a copy",
        thread=f"{MODELS_ISSUES}/7399",
    ),
    KnownFailure(
        pattern=re.compile(r"ValueError: \S+ is not supported for tf version 1\."),
        cause="the pinned tensorflow/models has no such feature extractor for TensorFlow 1",
        remedy="names that end in _keras belong to the TensorFlow 2 detection API and its own export; "
        "`--models pypi` brings a later commit, 3564634",
        thread=f"{MODELS_ISSUES}/8456",
    ),
    KnownFailure(
        pattern=re.compile(
            r"No module named '?tensorflow\.(tools\.graph_transforms|contrib)"
            r"|ValueError: \S+ is not supported( for tf version 2)?\. See `model_builder"
        ),
        cause="the script ran on TensorFlow 2, which lacks half of what it needs",
        remedy="run it in this toolchain, which has TensorFlow 1.15: `export`, `exec` or `shell`",
        thread=f"{MODELS_ISSUES}/8456",
    ),
    KnownFailure(
        pattern=re.compile(r"Only ssd models are supported in tflite"),
        cause="the config describes a model that is no SSD, and this export is for SSDs only",
        remedy="choose an archive whose config says model { ssd { … } }",
    ),
    KnownFailure(
        pattern=re.compile(r"Only fixed_shape_resizer ?is supported with tflite"),
        cause="the model takes images of varying shape, a .tflite of this kind cannot",
        remedy="choose a model with a fixed_shape_resizer, or train it with one",
    ),
    KnownFailure(
        pattern=re.compile(r"Number of feature maps is expected to equal the length of `num_anchors"),
        cause="the config's anchor_generator is for another number of feature maps than the network has",
        remedy="feature_extractor and anchor_generator go together: take both from one config",
    ),
    KnownFailure(
        pattern=re.compile(r"max_detections_per_class should be no greater than max_total_detections"),
        cause="the config allows one class more detections than there may be in total",
        remedy="in a copy, raise max_total_detections; how many come out is decided by --max_detections",
    ),
)

TOCO_FAILURES: Final = (
    KnownFailure(
        pattern=re.compile(r"lack(s|ing) min/?max( data)?"),
        cause="the graph does not say how to quantize one of its arrays: a FakeQuant node is missing there",
        remedy="convert a graph from quantization-aware training, or say --inference_type=FLOAT; made-up "
        "--default_ranges_min and --default_ranges_max give a model whose detections mean nothing",
        thread=f"{TENSORFLOW_ISSUES}/24663",
    ),
    KnownFailure(
        pattern=re.compile(r"disable this error with --allow_custom_ops"),
        cause="the graph holds an operator that is not TensorFlow Lite's own, such as the post-processing of "
        "detections",
        remedy="say --allow_custom_ops; the interpreter that runs the model has to know the operator",
        thread=f"{TENSORFLOW_ISSUES}/29758",
    ),
    KnownFailure(
        pattern=re.compile(r"Op type not registered 'TFLite_Detection_PostProcess'"),
        cause="TensorFlow itself cannot run the post-processing operator: only TensorFlow Lite has it",
        remedy="convert the graph with `toco` and run the .tflite, or remove that node first",
        thread=f"{TENSORFLOW_ISSUES}/29758",
    ),
    KnownFailure(
        pattern=re.compile(r"toco_from_protos\b.*not found"),
        cause="tflite_convert calls toco_from_protos, which is not on PATH",
        remedy="leave the toolchain's PATH as it is, or add to it: PATH=…:$PATH",
        thread=f"{TENSORFLOW_ISSUES}/40121",
    ),
    KnownFailure(
        pattern=re.compile(r"one of the arguments --graph_def_file .* is required"),
        cause="these are flags of the native TOCO, given to tflite_convert (pip installs it as toco as well)",
        remedy="call `toco`, which here speaks the native dialect",
        thread=f"{TENSORFLOW_ISSUES}/23550",
    ),
)

MACHINE_FAILURES: Final = (
    KnownFailure(
        # TensorFlow calls this one a ResourceExhaustedError, too.
        pattern=re.compile(r"No space left on device"),
        cause="the disk is full",
        remedy="free some space, or choose another --out",
    ),
    KnownFailure(
        pattern=re.compile(
            r"^MemoryError\b|std::bad_alloc|OOM when allocating|Cannot allocate memory|ResourceExhaustedError"
        ),
        cause="there was not enough memory",
        remedy="raise --memory-mib, close other programs, or convert one variant at a time",
    ),
    KnownFailure(
        pattern=re.compile(r"Permission ?[Dd]enied|PermissionError|Read-only file system"),
        cause="a file could not be read or written; the reason is in the last lines",
        remedy="see that the model may be read and that results go to --out",
    ),
    KnownFailure(
        pattern=re.compile(r"(NotFoundError|FileNotFoundError)\b.*No such file or directory"),
        cause="a file it was told to read is not there",
        remedy="the toolchain sees the folders that commands name and nothing else: is the path below one?",
    ),
)

STRANGE_TOOLCHAIN: Final = (
    KnownFailure(
        pattern=re.compile(
            r"Descriptors cannot (not )?be created directly|Cannot convert a symbolic Tensor"
            r"|No module named '?(nets|tf_slim|object_detection)\b|cannot import name '?\w+_pb2"
        ),
        cause="the packages or the models tree are not the pinned ones",
        remedy="`doctor` says which toolchain this is; `image` builds the pinned one",
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
    """Return the first known failure that these lines show, in the order of the table."""
    for failure in KNOWN_FAILURES:
        if any(failure.pattern.search(line) for line in lines):
            return failure
    return None
