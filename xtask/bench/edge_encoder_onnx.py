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
from onnx import TensorProto, helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from safetensors.numpy import load_file

from onnx_graph import Graph


class EncoderGraph(Graph):
    """Layers by the names that their weights have in the file."""

    def __init__(self, weights, epsilon):
        super().__init__()
        self.weights, self.epsilon = weights, epsilon

    def dense(self, value, name):
        return self.linear(value, self.weights[f"{name}.weight"].T, self.weights[f"{name}.bias"])

    def layer_norm(self, value, name):
        return self.norm(value, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], self.epsilon)


def build(weights, config):
    graph = EncoderGraph(weights, config["layer_norm_eps"])
    num_heads, dim = config["num_attention_heads"], config["hidden_size"]
    words = graph.op("Gather", graph.constant(weights["embeddings.word_embeddings.weight"]), "token_ids")
    places = weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
    zero, one = graph.constant([0], np.int64), graph.constant([1], np.int64)
    length = graph.op("Slice", graph.op("Shape", "token_ids"), one, graph.constant([2], np.int64))
    places = graph.op("Slice", graph.constant(places), zero, length)
    hidden = graph.layer_norm(graph.op("Add", words, places), "embeddings.LayerNorm")
    split = graph.constant([0, 0, num_heads, dim // num_heads], np.int64)
    joined = graph.constant([0, 0, dim], np.int64)
    scale = graph.constant(1 / math.sqrt(dim // num_heads))
    for layer in range(config["num_hidden_layers"]):
        base = f"encoder.layer.{layer}"
        heads = [
            graph.op("Reshape", graph.dense(hidden, f"{base}.attention.self.{part}"), split)
            for part in ("query", "key", "value")
        ]
        query = graph.op("Transpose", heads[0], perm=[0, 2, 1, 3])
        key = graph.op("Transpose", heads[1], perm=[0, 2, 3, 1])
        value = graph.op("Transpose", heads[2], perm=[0, 2, 1, 3])
        scores = graph.op("Mul", graph.op("MatMul", query, key), scale)
        mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value)
        mixed = graph.op("Reshape", graph.op("Transpose", mixed, perm=[0, 2, 1, 3]), joined)
        output = graph.dense(mixed, f"{base}.attention.output.dense")
        hidden = graph.op("Add", hidden, output)
        hidden = graph.layer_norm(hidden, f"{base}.attention.output.LayerNorm")
        inner = graph.op("Gelu", graph.dense(hidden, f"{base}.intermediate.dense"))
        hidden = graph.op("Add", hidden, graph.dense(inner, f"{base}.output.dense"))
        hidden = graph.layer_norm(hidden, f"{base}.output.LayerNorm")
    mean = graph.op("ReduceMean", hidden, one, keepdims=0)
    length = graph.op("ReduceL2", mean, one, keepdims=1)
    graph.nodes.append(helper.make_node("Div", [mean, length], ["embedding"], name="unit"))
    tokens = helper.make_tensor_value_info("token_ids", TensorProto.INT64, [1, "len"])
    embedding = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, dim])
    return graph.model("encoder", [tokens], [embedding])


def main():
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    config = json.loads((source / "config.json").read_text())
    weights = {name.removeprefix("bert."): value for name, value in load_file(source / "model.safetensors").items()}
    onnx.save(build(weights, config), target / "encoder.onnx")
    quantize_dynamic(target / "encoder.onnx", target / "encoder-q8.onnx", weight_type=QuantType.QInt8)


if __name__ == "__main__":
    main()
