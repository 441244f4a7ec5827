"""MiniLM as an ONNX graph and its int8 form, as model hubs publish it for browsers.

    edge_encoder_onnx.py MODEL_DIR DIR

reads config.json and model.safetensors, writes DIR/encoder.onnx and, by onnxruntime's dynamic quantization,
DIR/encoder-q8.onnx. Input: token ids [1, len]; output: the unit vector [1, dim].
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from safetensors.numpy import load_file


class Graph:
    """Nodes and constants in the order in which they are asked for."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, values, dtype=np.float32):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values, dtype=dtype), name))
        return name

    def op(self, kind, *inputs, **attributes):
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def linear(self, value, weights, name):
        product = self.op("MatMul", value, self.constant(weights[f"{name}.weight"].T))
        return self.op("Add", product, self.constant(weights[f"{name}.bias"]))

    def norm(self, value, weights, name, epsilon):
        scale, shift = (self.constant(weights[f"{name}.{part}"]) for part in ("weight", "bias"))
        return self.op("LayerNormalization", value, scale, shift, axis=-1, epsilon=epsilon)


def build(weights, config):
    graph, epsilon = Graph(), config["layer_norm_eps"]
    num_heads, dim = config["num_attention_heads"], config["hidden_size"]
    words = graph.op("Gather", graph.constant(weights["embeddings.word_embeddings.weight"]), "token_ids")
    places = weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
    zero, one = graph.constant([0], np.int64), graph.constant([1], np.int64)
    length = graph.op("Slice", graph.op("Shape", "token_ids"), one, graph.constant([2], np.int64))
    places = graph.op("Slice", graph.constant(places), zero, length)
    hidden = graph.norm(graph.op("Add", words, places), weights, "embeddings.LayerNorm", epsilon)
    split = graph.constant([0, 0, num_heads, dim // num_heads], np.int64)
    joined = graph.constant([0, 0, dim], np.int64)
    scale = graph.constant(1 / math.sqrt(dim // num_heads))
    for layer in range(config["num_hidden_layers"]):
        base = f"encoder.layer.{layer}"
        heads = [
            graph.op("Reshape", graph.linear(hidden, weights, f"{base}.attention.self.{part}"), split)
            for part in ("query", "key", "value")
        ]
        query = graph.op("Transpose", heads[0], perm=[0, 2, 1, 3])
        key = graph.op("Transpose", heads[1], perm=[0, 2, 3, 1])
        value = graph.op("Transpose", heads[2], perm=[0, 2, 1, 3])
        scores = graph.op("Mul", graph.op("MatMul", query, key), scale)
        mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value)
        mixed = graph.op("Reshape", graph.op("Transpose", mixed, perm=[0, 2, 1, 3]), joined)
        output = graph.linear(mixed, weights, f"{base}.attention.output.dense")
        hidden = graph.op("Add", hidden, output)
        hidden = graph.norm(hidden, weights, f"{base}.attention.output.LayerNorm", epsilon)
        inner = graph.op("Gelu", graph.linear(hidden, weights, f"{base}.intermediate.dense"))
        hidden = graph.op("Add", hidden, graph.linear(inner, weights, f"{base}.output.dense"))
        hidden = graph.norm(hidden, weights, f"{base}.output.LayerNorm", epsilon)
    mean = graph.op("ReduceMean", hidden, one, keepdims=0)
    length = graph.op("ReduceL2", mean, one, keepdims=1)
    graph.nodes.append(helper.make_node("Div", [mean, length], ["embedding"], name="unit"))
    tokens = helper.make_tensor_value_info("token_ids", TensorProto.INT64, [1, "len"])
    embedding = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, dim])
    body = helper.make_graph(graph.nodes, "encoder", [tokens], [embedding], graph.constants)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def main():
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    config = json.loads((source / "config.json").read_text())
    weights = {name.removeprefix("bert."): value for name, value in load_file(source / "model.safetensors").items()}
    onnx.save(build(weights, config), target / "encoder.onnx")
    quantize_dynamic(target / "encoder.onnx", target / "encoder-q8.onnx", weight_type=QuantType.QInt8)


if __name__ == "__main__":
    main()
