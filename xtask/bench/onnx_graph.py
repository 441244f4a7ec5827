"""What both scripts that write ONNX graphs for `cargo xtask bench edge` share."""

import numpy as np
import onnx
from onnx import helper, numpy_helper


class Graph:
    """Nodes and constants in the order in which they are asked for."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, values, dtype=np.float32):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype=dtype, order="C"), name))
        return name

    def op(self, kind, *inputs, **attributes):
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def linear(self, value, weights, bias=None):
        product = self.op("MatMul", value, self.constant(weights))
        return product if bias is None else self.op("Add", product, self.constant(bias))

    def norm(self, value, scale, shift, epsilon):
        scale, shift = self.constant(scale), self.constant(shift)
        return self.op("LayerNormalization", value, scale, shift, axis=-1, epsilon=epsilon)

    def model(self, name, inputs, outputs):
        body = helper.make_graph(self.nodes, name, inputs, outputs, self.constants)
        model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        return model
