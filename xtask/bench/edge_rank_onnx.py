"""The Ranker as an ONNX graph, from the weights that the example `edge_speed` wrote.

The graph is written node by node as an exporter would and no larger: the last layer runs for the last position alone,
the item vectors are a constant, the items of the history are left out, and the best ten come out.

    edge_rank_onnx.py DIR      reads DIR/rank.safetensors and DIR/rank-spec.json, writes DIR/rank.onnx
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from safetensors.numpy import load_file

from onnx_graph import Graph

LAYER_NORM_EPSILON = 1e-5
NORM_EPSILON = 1e-12
NEIGHBOUR_EPSILON = 0.01
NEVER_SUM = -1024.0  # the dequantized code of an item that nobody has touched
NUM_BEST = 10


class RankerGraph(Graph):
    def shaped(self, value, *dims):
        return self.op("Reshape", value, self.constant(dims, np.int64))

    def layer_norm(self, value, weights):
        return self.norm(value, weights[0], weights[1], LAYER_NORM_EPSILON)


def user_vector(graph, weights, spec, item_vectors):
    dim, num_heads = spec["embedding_dim"], spec["num_heads"]
    head_dim = dim // num_heads
    items = graph.op("Gather", graph.constant(item_vectors), "rows")
    items = graph.op("Mul", items, graph.constant(math.sqrt(dim)))
    kinds = graph.op("Gather", graph.constant(weights["kind.embedding"]), "kinds")
    gaps = graph.op("Gather", graph.constant(weights["gap.embedding"]), "gaps")
    events = graph.op("Add", graph.op("Add", items, kinds), gaps)
    hidden = graph.op("Concat", graph.constant(weights["start"]), events, axis=0)
    hidden = graph.op("Add", hidden, graph.constant(weights["position.embedding"]))
    num_positions = spec["history_len"] + 1
    last = graph.constant([num_positions - 1], np.int64)
    assert spec["num_layers"] == 1, "with one layer only the last position is wanted"
    layer = {name.removeprefix("layers.0."): value for name, value in weights.items()}
    bias = layer["attention_bias"]
    normed = graph.layer_norm(hidden, layer["norm_1"])
    query = graph.linear(graph.op("Gather", normed, last, axis=0), layer["query"], bias[0])
    key = graph.linear(normed, layer["key"], bias[1])
    value = graph.linear(normed, layer["value"], bias[2])
    query = graph.op("Transpose", graph.shaped(query, 1, num_heads, head_dim), perm=[1, 0, 2])
    key = graph.op("Transpose", graph.shaped(key, num_positions, num_heads, head_dim), perm=[1, 2, 0])
    value = graph.op("Transpose", graph.shaped(value, num_positions, num_heads, head_dim), perm=[1, 0, 2])
    scores = graph.op("Mul", graph.op("MatMul", query, key), graph.constant(1 / math.sqrt(head_dim)))
    mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value)
    mixed = graph.shaped(graph.op("Transpose", mixed, perm=[1, 0, 2]), 1, dim)
    hidden = graph.op("Gather", hidden, last, axis=0)
    hidden = graph.op("Add", hidden, graph.linear(mixed, layer["output"], bias[3]))
    inner = graph.linear(graph.layer_norm(hidden, layer["norm_2"]), layer["ff_in"], layer["ff_in_bias"][0])
    inner = graph.op("Gelu", inner)
    hidden = graph.op("Add", hidden, graph.linear(inner, layer["ff_out"], layer["ff_out_bias"][0]))
    return graph.layer_norm(hidden, weights["final_norm"])


def base_scores(graph, weights):
    """`bias + Σ_h w_h · log2(1 + 2^(log2 S − age))`, which depends on the time."""
    counts = weights["item.counts"]
    counts = np.where(counts <= NEVER_SUM, -np.inf, counts)
    powers = graph.op("Sub", graph.constant(counts), "ages")
    powers = graph.op("Exp", graph.op("Mul", powers, graph.constant(math.log(2))))
    features = graph.op("Log", graph.op("Add", powers, graph.constant(1.0)))
    scaled = weights["prior.weights"].T / math.log(2)
    prior = graph.op("MatMul", features, graph.constant(scaled))
    return graph.op("Add", prior, graph.constant(weights["item.bias"]))


def with_neighbours(graph, weights, scores, num_items):
    codes = weights["item.neighbours"].astype(np.int64)
    cosines = np.where(codes > 0, weights["item.neighbour_weights"], 0)
    flat = graph.constant([-1], np.int64)
    lists = graph.op("Gather", graph.constant(np.maximum(codes - 1, 0), np.int64), "recent")
    lists = graph.op("Reshape", lists, flat)
    added = graph.op("Reshape", graph.op("Gather", graph.constant(cosines), "recent"), flat)
    sums = graph.op("ScatterElements", graph.constant(np.zeros(num_items)), lists, added, reduction="add")
    sums = graph.op("Mul", graph.op("Gather", sums, lists), graph.constant(1 / NEIGHBOUR_EPSILON))
    gains = graph.op("Log", graph.op("Add", sums, graph.constant(1.0)))
    gains = graph.op("Mul", gains, graph.constant(weights["neighbour.weight"][0]))
    raised = graph.op("Add", graph.op("Gather", scores, lists), gains)
    return graph.op("ScatterElements", scores, lists, raised)


def build(weights, spec):
    graph = RankerGraph()
    raw = weights["item.text"] @ weights["text.projection"] + weights["item.id_rows"]
    item_vectors = raw / np.sqrt((raw * raw).sum(1, keepdims=True) + NORM_EPSILON)
    num_items = len(item_vectors)
    user = user_vector(graph, weights, spec, item_vectors)
    taste_weight = weights["taste.weight"][0, 0] if spec.get("has_taste_weight") else 1.0
    taste = graph.op("MatMul", user, graph.constant(item_vectors.T * taste_weight))
    scores = graph.op("Add", graph.shaped(taste, num_items), graph.shaped(base_scores(graph, weights), num_items))
    scores = with_neighbours(graph, weights, scores, num_items)
    seen = graph.constant(np.full(spec["history_len"], -1e30))
    scores = graph.op("ScatterElements", scores, "rows", seen)
    best = helper.make_node(
        "TopK", [scores, graph.constant([NUM_BEST], np.int64)], ["scores", "items"], axis=0
    )
    graph.nodes.append(best)
    whole = lambda name, length: helper.make_tensor_value_info(name, TensorProto.INT64, [length])
    real = lambda name, length: helper.make_tensor_value_info(name, TensorProto.FLOAT, [length])
    inputs = [whole(name, spec["history_len"]) for name in ("rows", "kinds", "gaps")]
    inputs += [whole("recent", "num_recent"), real("ages", len(spec["half_lives_secs"]))]
    outputs = [real("scores", NUM_BEST), whole("items", NUM_BEST)]
    return graph.model("ranker", inputs, outputs)


def main():
    folder = Path(sys.argv[1])
    spec = json.loads((folder / "rank-spec.json").read_text())
    onnx.save(build(load_file(folder / "rank.safetensors"), spec), folder / "rank.onnx")


if __name__ == "__main__":
    main()
