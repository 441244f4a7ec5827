"""The training step of `cargo xtask bench train` in PyTorch, as its users would write it.

train_pytorch.py EXPORT_FILE NUM_THREADS

Reads weights and batches that the example `training_step` has written, checks that loss and gradients of the
first batch are the same without dropout, prints that as one line of JSON, and then answers every line `N` of
standard input by the milliseconds of `N` steps, as JSON: `{"millis": [...], "cpu_millis": ...}`, the latter of
all threads and all `N`.
Not here: the model's definition, which is `shared_model::model::ranker`.
"""

import json
import struct
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def read_safetensors(path):
    """All tensors by name, and the metadata."""
    with open(path, "rb") as file:
        content = file.read()
    (header_len,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + header_len])
    metadata = header.pop("__metadata__")
    dtypes = {"F32": np.float32, "I32": np.int32}
    tensors = {}
    for name, entry in header.items():
        first, end = (8 + header_len + offset for offset in entry["data_offsets"])
        values = np.frombuffer(content[first:end], dtypes[entry["dtype"]])
        tensors[name] = torch.from_numpy(values.reshape(entry["shape"]).copy())
    return tensors, metadata


class Layer(nn.Module):
    """Pre-norm transformer layer."""

    def __init__(self, dim, ff_dim, num_heads, dropout):
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.norm_1 = nn.LayerNorm(dim)
        self.projection = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)
        self.norm_2 = nn.LayerNorm(dim)
        self.ff_in = nn.Linear(dim, ff_dim)
        self.ff_out = nn.Linear(ff_dim, dim)

    def forward(self, hidden):
        num_sequences, num_positions, dim = hidden.shape
        share = self.dropout if self.training else 0.0
        projected = self.projection(self.norm_1(hidden))
        heads = projected.view(num_sequences, num_positions, 3, self.num_heads, dim // self.num_heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=share, is_causal=True)
        mixed = mixed.transpose(1, 2).reshape(num_sequences, num_positions, dim)
        hidden = hidden + F.dropout(self.output(mixed), share)
        inner = F.gelu(self.ff_in(self.norm_2(hidden)))
        return hidden + F.dropout(self.ff_out(inner), share)


class Ranker(nn.Module):
    """Item vectors of unit length, a causal transformer, next-item cross-entropy over the catalogue."""

    def __init__(self, tensors, metadata):
        super().__init__()
        self.dropout = float(metadata["dropout"])
        parameter = lambda name: nn.Parameter(tensors[name].clone())
        self.id_rows = parameter("item.id_rows")
        self.bias = nn.Parameter(tensors["item.bias"][:, 0].clone())
        self.start = parameter("start")
        self.kind = parameter("kind.embedding")
        self.gap = parameter("gap.embedding")
        self.position = parameter("position.embedding")
        dim = self.id_rows.shape[1]
        ff_dim = tensors["layers.0.ff_in"].shape[1]
        num_heads = int(metadata["num_heads"])
        self.layers = nn.ModuleList(
            Layer(dim, ff_dim, num_heads, self.dropout) for _ in range(int(metadata["num_layers"]))
        )
        self.final_norm = nn.LayerNorm(dim)

    def forward(self, batch):
        dim = self.id_rows.shape[1]
        vectors = F.normalize(self.id_rows, dim=1)
        events = F.embedding(batch["items"], vectors) * dim**0.5
        events = events + F.embedding(batch["kinds"], self.kind) + F.embedding(batch["gaps"], self.gap)
        start = self.start.expand(events.shape[0], 1, dim)
        hidden = torch.cat([start, events], 1)
        hidden = hidden + self.position[: hidden.shape[1]]
        hidden = F.dropout(hidden, self.dropout if self.training else 0.0)
        for layer in self.layers:
            hidden = layer(hidden)
        users = self.final_norm(hidden).view(-1, dim)
        if batch["learned"] is not None:
            users = users[batch["learned"]]
        logits = torch.addmm(self.bias, users, vectors.t())
        return F.cross_entropy(logits, batch["next"])

    def named_as_exported(self):
        """Pairs of an exported name and a view that has its layout: of a parameter, or of its gradient."""

        def pairs(of):
            yield "item.id_rows", of(self.id_rows)
            yield "item.bias", of(self.bias)[:, None]
            yield "start", of(self.start)
            yield "kind.embedding", of(self.kind)
            yield "gap.embedding", of(self.gap)
            yield "position.embedding", of(self.position)
            for number, layer in enumerate(self.layers):
                parts = of(layer.projection.weight).chunk(3)
                biases = torch.stack([*of(layer.projection.bias).chunk(3), of(layer.output.bias)])
                yield f"layers.{number}.norm_1", torch.stack([of(layer.norm_1.weight), of(layer.norm_1.bias)])
                for name, part in zip(["query", "key", "value"], parts):
                    yield f"layers.{number}.{name}", part.t()
                yield f"layers.{number}.output", of(layer.output.weight).t()
                yield f"layers.{number}.attention_bias", biases
                yield f"layers.{number}.norm_2", torch.stack([of(layer.norm_2.weight), of(layer.norm_2.bias)])
                yield f"layers.{number}.ff_in", of(layer.ff_in.weight).t()
                yield f"layers.{number}.ff_in_bias", of(layer.ff_in.bias)[None]
                yield f"layers.{number}.ff_out", of(layer.ff_out.weight).t()
                yield f"layers.{number}.ff_out_bias", of(layer.ff_out.bias)[None]
            yield "final_norm", torch.stack([of(self.final_norm.weight), of(self.final_norm.bias)])

        return pairs

    @torch.no_grad()
    def load(self, tensors):
        for number, layer in enumerate(self.layers):
            tensor = lambda name: tensors[f"layers.{number}.{name}"]
            layer.norm_1.weight[:], layer.norm_1.bias[:] = tensor("norm_1")
            layer.projection.weight[:] = torch.cat([tensor(name).t() for name in ["query", "key", "value"]])
            layer.projection.bias[:] = tensor("attention_bias")[:3].reshape(-1)
            layer.output.weight[:] = tensor("output").t()
            layer.output.bias[:] = tensor("attention_bias")[3]
            layer.norm_2.weight[:], layer.norm_2.bias[:] = tensor("norm_2")
            layer.ff_in.weight[:] = tensor("ff_in").t()
            layer.ff_in.bias[:] = tensor("ff_in_bias")[0]
            layer.ff_out.weight[:] = tensor("ff_out").t()
            layer.ff_out.bias[:] = tensor("ff_out_bias")[0]
        self.final_norm.weight[:], self.final_norm.bias[:] = tensors["final_norm"]


def read_batches(tensors, metadata):
    """Integers of every batch; `learned` is absent where every position is."""
    batches = []
    for idx in range(int(metadata["num_batches"])):
        batch = {name: tensors[f"batch.{idx}.{name}"].long() for name in ["items", "kinds", "gaps"]}
        targets = tensors[f"batch.{idx}.targets"].long().view(-1)
        is_learned = targets >= 0
        batch["learned"] = None if bool(is_learned.all()) else is_learned.nonzero()[:, 0]
        batch["next"] = targets[is_learned]
        batches.append(batch)
    return batches


def compare(model, batch, tensors):
    """Largest differences to what was exported, without dropout; gradients relative to a tensor's largest."""
    model.eval()
    loss = model(batch)
    loss.backward()
    differences = {}
    for name, gradient in model.named_as_exported()(lambda parameter: parameter.grad):
        expected = tensors.get(f"gradient.{name}")
        if expected is not None:
            largest = expected.abs().max().clamp(min=1e-6)
            differences[name] = float((gradient - expected).abs().max() / largest)
    for name, value in model.named_as_exported()(lambda parameter: parameter.data):
        assert torch.equal(value, tensors[name]), f"{name} was not loaded as exported"
    model.zero_grad()
    model.train()
    expected_loss = float(tensors["loss"][0])
    return {
        "loss": loss.item(),
        "exported_loss": expected_loss,
        "loss_difference": abs(loss.item() - expected_loss) / abs(expected_loss),
        "gradient_differences": differences,
        "num_gradients": len(differences),
    }


def optimizer_of(model, metadata):
    """AdamW, decay on matrices only."""
    is_matrix = lambda parameter: parameter.dim() > 1 and parameter.shape[0] > 1
    decayed = [parameter for parameter in model.parameters() if is_matrix(parameter)]
    others = [parameter for parameter in model.parameters() if not is_matrix(parameter)]
    groups = [
        {"params": decayed, "weight_decay": float(metadata["weight_decay"])},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=float(metadata["learning_rate"]), fused=True)


def main():
    export_path, num_threads = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(num_threads)
    torch.manual_seed(1)
    tensors, metadata = read_safetensors(export_path)
    model = Ranker(tensors, metadata)
    model.load(tensors)
    batches = read_batches(tensors, metadata)
    report = compare(model, batches[0], tensors)
    report.update(torch_version=torch.__version__, num_threads=torch.get_num_threads())
    report["num_windows"] = [len(batch["items"]) for batch in batches]
    report["num_positions"] = [int(batch["items"].shape[0] * (batch["items"].shape[1] + 1)) for batch in batches]
    report["num_targets"] = [len(batch["next"]) for batch in batches]
    print(json.dumps(report), flush=True)

    optimizer = optimizer_of(model, metadata)
    gradient_norm_max = float(metadata["gradient_norm_max"])
    step = 0
    for line in sys.stdin:
        millis = []
        cpu_started_at = time.process_time()
        for _ in range(int(line)):
            batch = batches[step % len(batches)]
            step += 1
            started_at = time.perf_counter()
            optimizer.zero_grad(set_to_none=True)
            loss = model(batch)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), gradient_norm_max)
            optimizer.step()
            loss.item()
            millis.append((time.perf_counter() - started_at) * 1e3)
        cpu_millis = (time.process_time() - cpu_started_at) * 1e3
        print(json.dumps({"millis": millis, "cpu_millis": cpu_millis}), flush=True)


main()
