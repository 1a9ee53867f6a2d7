#!/usr/bin/env python3
"""Make a checkpoint whose conversion reproduces the weights and quantization ranges of a ``.tflite``.

The host program has already read the tensors from the file. This step builds the model that the config
describes. For each convolution and each FakeQuant node it finds the tensor in the file, and chooses values
for the variables that the node depends on:

* Weights: those of the file, into which TOCO has already folded the batch norm.
* Batch norm: scales by exactly 1. gamma is 1, the moving mean is 0, and the moving variance is the number for
  which variance + epsilon is exactly 1 in float32. beta is the bias in the file.
* Quantization ranges: those of the file.
* Variables that do not affect the file: ``global_step`` is the number of training steps in the config, and
  the range of a FakeQuant node is [0, 6].

    recover.py --pipeline-config FILE --tensors FOLDER --output PREFIX

FOLDER holds ``tensors.json`` and ``tensors.npz``, which ``runner/proof/recovery/file_tensors.py`` writes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator, NamedTuple

import numpy as np
from _checkpoint import save_checkpoint
from _detection import build_inference_graph, read_pipeline_config
from _step import InputError, Parser, import_tensorflow, run

if TYPE_CHECKING:
    import argparse

CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")
ADDITIONS = ("Add", "AddV2", "BiasAdd")
BATCH_NORMS = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
ACTIVATIONS = ("Relu", "Relu6", "Identity")
FAKE_QUANT = "FakeQuantWithMinMaxVars"
VARIABLES = ("VariableV2", "Variable")
UNUSED_RANGE = (0.0, 6.0)
MANY = 5


class FileConvolution(NamedTuple):
    """A convolution in the file. ``weights`` are in TFLite's layout; ``ends`` is their quantization range."""

    output: str
    input: str
    is_depthwise: bool
    weights: np.ndarray
    bias: np.ndarray | None
    ends: tuple[float, float] | None


class FileTensors(NamedTuple):
    """The data that the host program has read from the file, keyed by tensor name."""

    convolutions: dict[str, FileConvolution]
    operands: dict[str, np.ndarray]
    ranges: dict[str, tuple[float, float]]


class Values:
    """The chosen values of the variables, and the names of the variables whose values are approximate."""

    def __init__(self) -> None:
        self.chosen: dict[str, np.ndarray] = {}
        self.approximate: list[str] = []

    def choose(self, variable: Any, value: Any) -> None:  # noqa: ANN401 - a TensorFlow operation; an array
        """Choose a variable's value. If it already has another one, keep that and mark it as approximate.

        Raises:
            InputError: the value does not have the variable's shape.
        """
        dtype = variable.outputs[0].dtype.base_dtype.as_numpy_dtype
        shape = tuple(variable.outputs[0].shape.as_list())
        array = np.asarray(value, dtype)
        if array.shape != shape:
            raise InputError(
                f"{variable.name} has the shape {list(shape)} in the model that the config describes, "
                f"and {list(array.shape)} in the file",
                tip="use the config of the training; num_classes and depth_multiplier determine shapes",
            )
        known = self.chosen.setdefault(variable.name, array)
        if not np.array_equal(known, array):
            self.approximate.append(variable.name)


def main() -> None:
    """Recover the checkpoint given on the command line."""
    parser = Parser("Make a checkpoint from the tensors of a .tflite file.")
    parser.add_argument("--pipeline-config", type=Path, required=True)
    parser.add_argument("--tensors", type=Path, required=True, help="folder with the tensors of the file")
    parser.add_argument("--output", type=Path, required=True, help="prefix of the checkpoint to write")
    run(parser, recover)


def recover(options: argparse.Namespace) -> dict[str, Any]:
    """Write the checkpoint and return how its variables were chosen."""
    config = read_pipeline_config(options.pipeline_config)
    if config.model.WhichOneof("model") != "ssd":
        raise InputError(f"{options.pipeline_config}: this is not the config of an SSD model")
    file = read_tensors(options.tensors)
    require_same_kind(file, options.pipeline_config, is_quantized=config.HasField("graph_rewriter"))
    tf = import_tensorflow()
    with tf.Graph().as_default():
        network = Network(build_inference_graph(config))
        values = Values()
        used = set()
        for convolution in network.convolutions():
            used.add(choose_convolution(network, convolution, file, values))
        require_all_used(file, used)
        choose_ranges(network, file, values)
        determined = sorted(values.chosen)
        names = {variable.op.name for variable in tf.global_variables()}
        choose_the_rest(tf, network, config.train_config.num_steps, values)
        save_checkpoint(tf, values.chosen, options.output)
    return {
        "variables": len(names),
        "determined": len(determined),
        "not_determined": sorted(names.difference(determined)),
        "approximate": sorted(set(values.approximate)),
        "ranges": {name: float(value) for name, value in values.chosen.items() if is_range(name)},
    }


def is_range(name: str) -> bool:
    """Return whether a variable is the minimum or maximum of a quantization range."""
    return name.rsplit("/", 1)[-1] in ("min", "max")


def read_tensors(folder: Path) -> FileTensors:
    """Read the tensors that the host program has extracted from the file."""
    described = json.loads((folder / "tensors.json").read_text("utf-8"))
    with np.load(str(folder / "tensors.npz"), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    convolutions = (
        FileConvolution(
            output=it["output"],
            input=it["input"],
            is_depthwise=it["isDepthwise"],
            weights=arrays[it["weights"]],
            bias=None if it["bias"] is None else arrays[it["bias"]],
            ends=None if it["range"] is None else tuple(it["range"]),
        )
        for it in described["convolutions"]
    )
    return FileTensors(
        convolutions={it.output: it for it in convolutions},
        operands={name: arrays[key] for name, key in described["operands"].items()},
        ranges={name: tuple(ends) for name, ends in described["ranges"].items()},
    )


def require_same_kind(file: FileTensors, config: Path, *, is_quantized: bool) -> None:
    """Check that the file and the config are both quantized or both float.

    Raises:
        InputError: one is quantized, the other is not.
    """
    if bool(file.ranges) != is_quantized:
        kinds = (
            "quantized, but the config has no graph_rewriter",
            "float, but the config has a graph_rewriter",
        )
        raise InputError(
            f"{config} does not fit the .tflite: the .tflite is {kinds[0] if file.ranges else kinds[1]}",
            tip="use the config that the model was trained with",
        )


class Network:
    """The part of the default graph that the given outputs depend on."""

    def __init__(self, outputs: list[Any]) -> None:
        needed = _ancestors(output.op for output in outputs)
        self._needed = needed
        self.operations = [it for it in outputs[0].graph.get_operations() if it in needed]
        (image,) = (it for it in self.operations if it.type == "Placeholder")
        self._from_image = self._descendants(image)

    def _descendants(self, operation: Any) -> set[Any]:  # noqa: ANN401 - a TensorFlow operation
        found, waiting = set(), [operation]
        while waiting:
            operation = waiting.pop()
            if operation not in found:
                found.add(operation)
                waiting.extend(self._consumers(operation))
        return found

    def _consumers(self, operation: Any) -> set[Any]:  # noqa: ANN401 - a TensorFlow operation
        return {it for tensor in operation.outputs for it in tensor.consumers() if it in self._needed}

    def convolutions(self) -> Iterator[Any]:
        """Yield the convolutions."""
        for operation in self.operations:
            if operation.type in CONVOLUTIONS and self.variables_of(operation.inputs[1]):
                yield operation

    def quantizers(self) -> Iterator[Any]:
        """Yield the FakeQuant nodes."""
        yield from (it for it in self.operations if it.type == FAKE_QUANT)

    def is_constant(self, tensor: Any) -> bool:  # noqa: ANN401 - a TensorFlow tensor
        """Return whether a tensor is independent of the image."""
        return tensor.op not in self._from_image

    def variables_of(self, tensor: Any) -> list[Any]:  # noqa: ANN401 - a TensorFlow tensor
        """Return the variables that a tensor depends on, if it is independent of the image."""
        if not self.is_constant(tensor):
            return []
        return sorted((it for it in _ancestors([tensor.op]) if it.type in VARIABLES), key=_name)

    def following(self, operation: Any) -> Iterator[Any]:  # noqa: ANN401 - a TensorFlow operation
        """Yield the additions, batch norms and activations that follow a convolution."""
        while True:
            consumers = self._consumers(operation)
            if len(consumers) != 1:
                return
            (operation,) = consumers
            is_addition = operation.type in ADDITIONS and any(map(self.is_constant, operation.inputs))
            if not (is_addition or operation.type in BATCH_NORMS + ACTIVATIONS):
                return
            yield operation


def _ancestors(operations: Iterable[Any]) -> set[Any]:
    """Return the operations and everything that they depend on."""
    found, waiting = set(), list(operations)
    while waiting:
        operation = waiting.pop()
        if operation not in found:
            found.add(operation)
            waiting.extend(tensor.op for tensor in operation.inputs)
    return found


def choose_convolution(
    network: Network,
    convolution: Any,  # noqa: ANN401 - a TensorFlow operation
    file: FileTensors,
    values: Values,
) -> str:
    """Choose values for the variables of a convolution and its batch norm; return the file's tensor name.

    Raises:
        InputError: the file has no such convolution, or has it with another shape.
    """
    chain = [convolution, *network.following(convolution)]
    position = next((n for n, it in reversed(list(enumerate(chain))) if it.name in file.convolutions), None)
    if position is None:
        raise InputError(
            f"the file lacks {convolution.name}, a convolution of the model that the config describes",
            tip="use the config that the model was trained with; --recipe NAME uses a recipe's config",
        )
    found = file.convolutions[chain[position].name]
    source = convolution.inputs[1]
    if source.op.type == FAKE_QUANT:
        choose_ends(network, source.op, found.ends, values)
        source = source.op.inputs[0]
    factor = scaled_input(network, convolution, found)
    by_kind = {_kind(it): it for it in network.variables_of(source)}
    kernel = by_kind.pop("depthwise_weights", None) or by_kind.pop("weights", None)
    if kernel is None:
        raise InputError(f"{convolution.name}: the variable that holds its weights is of an unknown kind")
    values.choose(kernel, kernel_values(kernel, found, factor, values))
    if by_kind:  # the graph itself folds the batch norm, so its scale is part of the weights
        choose_identity(by_kind, epsilon_before(source), values)
    bias = np.zeros(found.weights.shape[3 if found.is_depthwise else 0]) if found.bias is None else found.bias
    folded = chain[1 : position + 1]
    added = sum(filter(None, (added_number(network, it) for it in folded)))
    if added:  # such as the 3 of a hard swish, which TOCO adds to the biases
        bias, is_exact = subtract(bias.astype(np.float32), np.float32(added))
        if not is_exact:
            values.approximate += [it.name for it in folded if it.type in ADDITIONS]
    for each in chain[1:]:
        choose_offset(network, each, bias if each in folded else None, file, values)
    return found.output


def added_number(network: Network, operation: Any) -> float | None:  # noqa: ANN401 - a TensorFlow operation
    """Return the number that an addition adds, or None if it does not add a constant number."""
    from tensorflow.python.framework import tensor_util

    if operation.type not in ADDITIONS:
        return None
    numbers = [tensor_util.constant_value(it) for it in operation.inputs if network.is_constant(it)]
    return float(numbers[0]) if numbers[0] is not None and numbers[0].size == 1 else None


def subtract(sums: np.ndarray, number: np.float32) -> tuple[np.ndarray, bool]:
    """Return float32 values x with x + number = sums, and whether this is exact for all of them."""
    return undo(sums, sums - number, lambda candidate: candidate + number)


def kernel_values(
    kernel: Any,  # noqa: ANN401 - a TensorFlow operation
    found: FileConvolution,
    factor: float | None,
    values: Values,
) -> np.ndarray:
    """Return the file's weights in TensorFlow's layout, divided by the factor that TOCO multiplied in."""
    shape = kernel.outputs[0].shape.as_list()
    weights = found.weights
    if found.is_depthwise:
        weights = weights.reshape(shape) if weights.size == np.prod(shape) else weights[0]
    else:
        weights = weights.transpose(1, 2, 3, 0)
    if factor is None:
        return weights
    unscaled, is_exact = divide(weights.astype(np.float32), np.float32(factor))
    if not is_exact:
        values.approximate.append(kernel.name)
    return unscaled


def divide(products: np.ndarray, factor: np.float32) -> tuple[np.ndarray, bool]:
    """Return float32 values x with x * factor = products, and whether this is exact for all of them."""
    return undo(products, products / factor, lambda candidate: candidate * factor)


def undo(
    results: np.ndarray, guesses: np.ndarray, compute: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, bool]:
    """Return float32 values x with compute(x) = results, and whether this is exact for all of them.

    Each x is the guess or one of the two float32 values next to it.
    """
    for end in (np.float32(-np.inf), np.float32(np.inf)):
        neighbours = np.nextafter(guesses, end)
        guesses = np.where(compute(neighbours) == results, neighbours, guesses)
    return guesses, bool(np.all(compute(guesses) == results))


def scaled_input(network: Network, convolution: Any, found: FileConvolution) -> float | None:  # noqa: ANN401
    """Return the constant by which the graph multiplies the input, if TOCO moved it into the weights."""
    from tensorflow.python.framework import tensor_util

    product = convolution.inputs[0].op
    while product.type == "Identity":
        product = product.inputs[0].op
    if product.type != "Mul" or product.name == found.input:
        return None
    factors = [tensor_util.constant_value(it) for it in product.inputs if network.is_constant(it)]
    return float(factors[0]) if factors and factors[0] is not None and factors[0].size == 1 else None


def choose_identity(by_kind: dict[str, Any], epsilon: float, values: Values) -> None:
    """Choose values for the variables of a batch norm so that it scales by exactly 1."""
    for kind, value in (("gamma", 1.0), ("moving_variance", unit_variance(epsilon))):
        if kind in by_kind:
            shape = by_kind[kind].outputs[0].shape.as_list()
            values.choose(by_kind[kind], np.full(shape, value))


def choose_offset(
    network: Network,
    operation: Any,  # noqa: ANN401 - a TensorFlow operation
    bias: np.ndarray | None,
    file: FileTensors,
    values: Values,
) -> None:
    """Choose values for the variables of an addition or a batch norm that follows a convolution.

    ``bias`` is None if the operation is not folded into the convolution but has its own operators in the
    file.
    """
    by_kind = {_kind(it): it for tensor in operation.inputs for it in network.variables_of(tensor)}
    if not by_kind:
        return
    scale = None
    if bias is None:
        scale = file.operands.get(f"{operation.name}_mul_0")
        names = [operation.name, *(it.name for it in network.following(operation) if it.type in ACTIVATIONS)]
        bias = next((file.operands[it] for it in names if it in file.operands), None)
        if bias is None:
            raise InputError(
                f"the file lacks {operation.name}, an operation of the model that the config describes",
                tip="use the config that the model was trained with; --recipe NAME uses a recipe's config",
            )
    if operation.type in BATCH_NORMS:
        choose_identity(by_kind, operation.get_attr("epsilon"), values)
        if scale is not None and "gamma" in by_kind:
            values.chosen[by_kind["gamma"].name] = np.asarray(scale, np.float32).reshape(-1)
    bias = np.asarray(bias).reshape(-1)
    if "beta" in by_kind:
        values.choose(by_kind["beta"], bias)
        values.choose(by_kind["moving_mean"], np.zeros_like(bias))
    elif "moving_mean" in by_kind:
        values.choose(by_kind["moving_mean"], -bias)
    elif "biases" in by_kind:
        values.choose(by_kind["biases"], bias)


def unit_variance(epsilon: float) -> np.float32:
    """Return the variance for which variance + epsilon is exactly 1 in float32."""
    epsilon = np.float32(epsilon)
    variance = np.float32(1.0) - epsilon
    while variance + epsilon < np.float32(1.0):
        variance = np.nextafter(variance, np.float32(2.0))
    return variance


def epsilon_before(weights: Any) -> float:  # noqa: ANN401 - a TensorFlow tensor
    """Return the epsilon of the batch norm that the graph folds into the weights."""
    from tensorflow.python.framework import tensor_util

    roots = [it for it in _ancestors([weights.op]) if it.type == "Rsqrt"]
    sums = [tensor_util.constant_value(it) for root in roots for it in root.inputs[0].op.inputs]
    constants = [float(value) for value in sums if value is not None and value.size == 1]
    if len(constants) != 1:
        raise InputError(f"{weights.name}: expected one epsilon of a batch norm, found {len(constants)}")
    return constants[0]


def choose_ranges(network: Network, file: FileTensors, values: Values) -> None:
    """Choose the range of each activation that has a range in the file."""
    for quantizer in network.quantizers():
        source = quantizer.inputs[0].op
        names = [quantizer.name, source.name]
        while source.type == "Identity":
            source = source.inputs[0].op
            names.append(source.name)
        ends = next((file.ranges[it] for it in names if it in file.ranges), None)
        if ends is not None and not network.variables_of(quantizer.inputs[0]):
            choose_ends(network, quantizer, ends, values)


def choose_ends(network: Network, quantizer: Any, ends: tuple[float, float] | None, values: Values) -> None:  # noqa: ANN401
    """Choose the minimum and the maximum of a FakeQuant node."""
    if ends is None:
        raise InputError(f"the file has no quantization range for {quantizer.name}")
    for tensor, value in zip(quantizer.inputs[1:], ends):
        for variable in network.variables_of(tensor):
            values.choose(variable, value)


def choose_the_rest(tf: Any, network: Network, num_steps: int, values: Values) -> None:  # noqa: ANN401
    """Choose the values of the variables that do not affect the file (see the module's docstring)."""
    for quantizer in network.quantizers():
        for tensor, value in zip(quantizer.inputs[1:], UNUSED_RANGE):
            for variable in network.variables_of(tensor):
                values.chosen.setdefault(variable.name, np.float32(value))
    for variable in tf.global_variables():
        name, shape = variable.op.name, variable.shape.as_list()
        value = num_steps if name == "global_step" else 0
        values.chosen.setdefault(name, np.full(shape, value, variable.dtype.base_dtype.as_numpy_dtype))


def require_all_used(file: FileTensors, used: set[str]) -> None:
    """Check that the model has every convolution of the file.

    Raises:
        InputError: the model lacks a convolution.
    """
    unknown = sorted(set(file.convolutions) - used)
    if unknown:
        more = f" and {len(unknown) - MANY} more" if len(unknown) > MANY else ""
        raise InputError(
            f"the model that the config describes lacks convolutions of the file: "
            f"{', '.join(unknown[:MANY])}{more}",
            tip="use the config that the model was trained with; --recipe NAME uses a recipe's config",
        )


def _name(operation: Any) -> str:  # noqa: ANN401 - a TensorFlow operation
    return operation.name


def _kind(variable: Any) -> str:  # noqa: ANN401 - a TensorFlow operation
    return variable.name.rsplit("/", 1)[-1]


if __name__ == "__main__":
    main()
