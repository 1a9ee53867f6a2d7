"""Read from a frozen graph what its ``.tflite`` should contain: folded weights, ranges and attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterator, NamedTuple

import numpy as np
from _step import InputError, import_tensorflow

if TYPE_CHECKING:
    from pathlib import Path

    from tensorflow.core.framework.graph_pb2 import GraphDef
    from tensorflow.core.framework.node_def_pb2 import NodeDef

POST_PROCESS = "TFLite_Detection_PostProcess"
CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")
ADDITIONS = ("Add", "AddV2", "BiasAdd")
BATCH_NORMS = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
ACTIVATIONS = ("Relu", "Relu6", "Identity")
FAKE_QUANT = "FakeQuantWithMinMaxVars"


class Range(NamedTuple):
    """The real range of a quantized tensor; a narrow range does not use the lowest integer."""

    low: float
    high: float
    is_narrow: bool


class Convolution(NamedTuple):
    """A convolution with the bias and batch norm after it folded in; weights are in TFLite's layout.

    ``outputs`` are the nodes whose value TOCO may write as the convolution's output. ``scaled_inputs``
    contains the node that the graph multiplies by a number before the convolution, and that number: TOCO may
    scale the weights instead.
    """

    name: str
    weights: np.ndarray
    bias: np.ndarray
    weight_range: Range | None
    outputs: list[str]
    scaled_inputs: dict[str, float]


class FrozenGraph:
    """A frozen detection graph, with its nodes by name and its constants evaluated."""

    def __init__(self, graph: GraphDef) -> None:
        self.nodes = {node.name: node for node in graph.node}
        self.post_process = self._only(POST_PROCESS)
        # TensorFlow does not implement the detection operator, so the graph that it evaluates omits it.
        self.computable = type(graph)(versions=graph.versions)
        self.computable.node.extend(node for node in graph.node if node.op != POST_PROCESS)
        self.input = self._only("Placeholder").name
        self._is_constant: dict[str, bool] = {}
        self._consumers: dict[str, list[NodeDef]] = {}
        for node in graph.node:
            for source in inputs_of(node):
                self._consumers.setdefault(source, []).append(node)

    @classmethod
    def read(cls, path: Path) -> FrozenGraph:
        """Read a graph from its file.

        Raises:
            InputError: the file does not exist, or is not a graph with a detection operator.
        """
        from google.protobuf.message import DecodeError
        from tensorflow.core.framework.graph_pb2 import GraphDef

        try:
            return cls(GraphDef.FromString(path.read_bytes()))
        except OSError as problem:
            raise InputError(f"{path}: {problem.strerror}") from problem
        except DecodeError as problem:
            raise InputError(
                f"{path}: this is not a frozen graph", tip="pass the tflite_graph.pb that the export wrote"
            ) from problem

    def _only(self, operation: str) -> NodeDef:
        found = [node for node in self.nodes.values() if node.op == operation]
        if len(found) != 1:
            raise InputError(
                f"the frozen graph has {len(found)} {operation} nodes, expected one",
                tip="pass the tflite_graph.pb that the export wrote",
            )
        return found[0]

    def raw_outputs(self) -> tuple[str, str, str]:
        """Return the names of the detection operator's inputs: box encodings, class predictions, anchors."""
        boxes, classes, anchors = inputs_of(self.post_process)
        return boxes, classes, anchors

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the detection operator, without the lists, which TensorFlow adds."""
        scalars = (
            (name, value)
            for name, value in self.post_process.attr.items()
            if value.WhichOneof("value") != "list"
        )
        return {name: getattr(value, value.WhichOneof("value")) for name, value in scalars}

    def ranges(self) -> dict[str, Range]:
        """Return the quantization range of every node whose output is fake-quantized."""
        quantizers = [node for node in self.nodes.values() if node.op == FAKE_QUANT]
        ends = self.evaluate([name for node in quantizers for name in inputs_of(node)[1:]])
        ranges = {}
        for node in quantizers:
            source, low, high = inputs_of(node)
            for name in self._names_of(source):
                ranges[name] = Range(float(ends[low]), float(ends[high]), node.attr["narrow_range"].b)
        return ranges

    def _names_of(self, name: str) -> Iterator[str]:
        """Yield the name of a node and, through Identity nodes, which TOCO removes, of the node it copies."""
        yield name
        while self.nodes[name].op == "Identity":
            name = inputs_of(self.nodes[name])[0]
            yield name

    def layers(self, names: list[str]) -> dict[str, str]:
        """Return the node that holds the value of each layer, keyed by the layer's name.

        A name that is not a node, or a node that does not depend on the graph's input, is omitted. If a node
        is fake-quantized, its FakeQuant node holds the value with which the rest of the graph computes.
        """
        quantized = {
            name: node.name
            for node in self.nodes.values()
            if node.op == FAKE_QUANT
            for name in self._names_of(inputs_of(node)[0])
        }
        return {
            name: quantized.get(name, name)
            for name in names
            if name in self.nodes and self.nodes[name].op != POST_PROCESS and not self.is_constant(name)
        }

    def convolutions(self) -> Iterator[Convolution]:
        """Yield every convolution, with the constants that follow it folded in."""
        ranges = self.ranges()
        nodes = [node for node in self.nodes.values() if node.op in CONVOLUTIONS]
        values = self.evaluate(sorted({name for node in nodes for name in self._constants_behind(node)}))
        for node in nodes:
            source = self._weights_of(node)
            is_quantized = self.nodes[inputs_of(node)[1]].op == FAKE_QUANT
            weights, bias = self._fold(node, np.float64(values[source]), values)
            yield Convolution(
                name=node.name,
                weights=weights,
                bias=bias,
                weight_range=ranges[source] if is_quantized else None,
                outputs=self._outputs_of([node, *self._foldable(node)]),
                scaled_inputs={
                    input_: float(values[factor])
                    for input_, factor in self._scaled_inputs_of(node)
                    if values[factor].size == 1
                },
            )

    def _weights_of(self, convolution: NodeDef) -> str:
        """Return the name of a convolution's weights before fake quantization."""
        source = inputs_of(convolution)[1]
        node = self.nodes[source]
        return inputs_of(node)[0] if node.op == FAKE_QUANT else source

    def _fold(
        self, convolution: NodeDef, weights: np.ndarray, values: dict[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        is_depthwise = convolution.op == "DepthwiseConv2dNative"
        height, width, depth, last = weights.shape
        # One row per kernel position and input channel, one column per output channel.
        weights = weights.reshape(height * width, depth * last) if is_depthwise else weights.reshape(-1, last)
        bias = np.zeros(weights.shape[1])
        for node in self._foldable(convolution):
            constants = [np.float64(values[name]) for name in inputs_of(node) if self.is_constant(name)]
            if node.op in ADDITIONS:
                bias = bias + constants[0]
            else:
                scale, offset = batch_norm(node, *constants)
                weights, bias = weights * scale, bias * scale + offset
        if is_depthwise:
            return weights.reshape(1, height, width, depth * last), bias
        return weights.reshape(height, width, depth, last).transpose(3, 0, 1, 2), bias

    def _foldable(self, node: NodeDef) -> Iterator[NodeDef]:
        """Yield the additions of a constant and the batch norms that directly follow a convolution.

        Batch norms are omitted if the weights are shared: TOCO does not fold them in that case.
        """
        foldable = ADDITIONS if self._shares_weights(node) else ADDITIONS + BATCH_NORMS
        while len(self._consumers.get(node.name, [])) == 1:
            node = self._consumers[node.name][0]
            if node.op not in foldable or not any(map(self.is_constant, inputs_of(node))):
                return
            yield node

    def _shares_weights(self, convolution: NodeDef) -> bool:
        """Return whether other nodes also read the convolution's weights, even through Identity nodes."""
        name = inputs_of(convolution)[1]
        while len(self._consumers[name]) == 1:
            if self.nodes[name].op != "Identity":
                return False
            name = inputs_of(self.nodes[name])[0]
        return True

    def _outputs_of(self, fused: list[NodeDef]) -> list[str]:
        """Return the names of the fused nodes and of the activations and Identity nodes that follow them."""
        names = [node.name for node in fused]
        consumers = self._consumers.get(names[-1], [])
        while len(consumers) == 1 and consumers[0].op in ACTIVATIONS:
            names.append(consumers[0].name)
            consumers = self._consumers.get(names[-1], [])
        return names

    def _scaled_inputs_of(self, convolution: NodeDef) -> Iterator[tuple[str, str]]:
        """If a convolution's input is a node times a constant, yield the names of both."""
        *_, last = self._names_of(inputs_of(convolution)[0])
        product = self.nodes[last]
        factors = [name for name in inputs_of(product) if self.is_constant(name)]
        if product.op == "Mul" and len(factors) == 1:
            (source,) = set(inputs_of(product)) - set(factors)
            yield source, factors[0]

    def operands(self) -> dict[str, np.ndarray]:
        """Return the constant operands of the additions and multiplications that TOCO may keep as operators.

        The keys are the names that TOCO gives to the outputs of these operators.
        """
        nodes = [node for node in self.nodes.values() if node.op in (*ADDITIONS, *BATCH_NORMS, "Mul")]
        constants = {node.name: list(filter(self.is_constant, inputs_of(node))) for node in nodes}
        values = self.evaluate(sorted({name for names in constants.values() for name in names}))
        operands: dict[str, np.ndarray] = {}
        for node in nodes:
            reals = [np.float64(values[name]) for name in constants[node.name]]
            if node.op in BATCH_NORMS and len(reals) == 4:
                scale, reals[0] = batch_norm(node, *reals)
                operands[f"{node.name}_mul_0"] = scale
            if len(reals) != len(inputs_of(node)) and reals:
                operands.update(dict.fromkeys(self._outputs_of([node]), reals[0]))
        return operands

    def _constants_behind(self, convolution: NodeDef) -> Iterator[str]:
        yield self._weights_of(convolution)
        for node in self._foldable(convolution):
            yield from filter(self.is_constant, inputs_of(node))
        for _, factor in self._scaled_inputs_of(convolution):
            yield factor

    def is_constant(self, name: str) -> bool:
        """Return whether the node's value does not depend on the graph's input."""
        if name not in self._is_constant:
            node = self.nodes[name]
            self._is_constant[name] = node.op != "Placeholder" and all(map(self.is_constant, inputs_of(node)))
        return self._is_constant[name]

    def evaluate(self, names: list[str], feeds: dict[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """Return the values of nodes by name."""
        tf = import_tensorflow()
        with tf.Graph().as_default() as graph:
            tf.import_graph_def(self.computable, name="")
            with tf.Session(graph=graph) as session:
                fed = {f"{name}:0": value for name, value in (feeds or {}).items()}
                return session.run({name: f"{name}:0" for name in names}, fed)


def batch_norm(
    node: NodeDef, gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray, variance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scale and the offset that are equivalent to a batch norm."""
    scale = gamma / np.sqrt(variance + node.attr["epsilon"].f)
    return scale, beta - mean * scale


def inputs_of(node: NodeDef) -> list[str]:
    """Return the names of a node's data inputs."""
    return [name.split(":")[0] for name in node.input if not name.startswith("^")]
