"""RecBole's SASRec under leave-one-out, for `cargo xtask bench leave-one-out`.

leave_one_out_recbole.py INTER_FILE WORK_DIR SEED SECONDS NUM_THREADS

Trains with the hyper-parameters that RecBole ships for SASRec, cross-entropy over the whole catalogue, on the
events of INTER_FILE but the last two of each user; the last but one chooses the epoch (early stopping after ten
epochs without gain, or when SECONDS have passed). Then ranks the last event of every user who had an event before
and had not had the item, among all items but those that the user had, given everything the user did before; ties
go to the lower index. Items without an event are none that RecBole knows: it cannot put one before the target.
Prints one line of JSON: means, half-widths of 95 % intervals over users, epochs, seconds.
"""

import json
import math
import os
import sys
import time
from collections import defaultdict

import numpy as np
import torch

# RecBole 1.2 was written when checkpoints were loaded whole; this one was written by this process.
_load = torch.load
torch.load = lambda *args, **kwargs: _load(*args, **{**kwargs, "weights_only": False})

from recbole.config import Config  # noqa: E402
from recbole.data import create_dataset, data_preparation  # noqa: E402
from recbole.data.interaction import Interaction  # noqa: E402
from recbole.model.sequential_recommender import SASRec  # noqa: E402
from recbole.trainer import Trainer  # noqa: E402
from recbole.utils import init_seed  # noqa: E402

TOP_LEN = 10
CHUNK_LEN = 256


class OutOfTime(Exception):
    """Training has had its seconds."""


def read(path):
    """Item indices of each user in order, as strings."""
    histories = defaultdict(list)
    with open(path, encoding="utf-8") as file:
        next(file)
        for line in file:
            user, item, _ = line.rstrip("\n").split("\t")
            histories[user].append(item)
    return histories


def train(config, seconds):
    """The best epoch's model, its dataset, and what training was like."""
    dataset = create_dataset(config)
    train_data, valid_data, _ = data_preparation(config, dataset)
    model = SASRec(config, train_data.dataset)
    trainer = Trainer(config, model)
    started_at = time.monotonic()
    epochs = []

    def after_epoch(_, score):
        epochs.append({"seconds": time.monotonic() - started_at, "valid": score})
        print(json.dumps(epochs[-1]), file=sys.stderr, flush=True)
        if time.monotonic() - started_at > seconds:
            raise OutOfTime

    is_cut = False
    try:
        trainer.fit(train_data, valid_data, verbose=False, callback_fn=after_epoch)
    except OutOfTime:
        is_cut = True
    checkpoint = torch.load(trainer.saved_model_file)
    model.load_state_dict(checkpoint["state_dict"])
    model.eval()
    best = max(range(len(epochs)), key=lambda idx: epochs[idx]["valid"])
    return model, dataset, {
        "num_epochs": len(epochs),
        "best_epoch": best + 1,
        "is_cut_by_time": is_cut,
        "train_secs": time.monotonic() - started_at,
        "valid_by_epoch": [epoch["valid"] for epoch in epochs],
    }


def ranks(model, dataset, histories, history_len):
    """Rank of the last item of each user who had something before, and not this."""
    known = {token: dataset.token2id("item_id", token) for token in dataset.field2token_id["item_id"] if token != "[PAD]"}
    order = np.array([0] + [int(token) for token in dataset.field2id_token["item_id"][1:]])
    asked = [items for items in histories.values() if len(items) > 1 and items[-1] not in items[:-1]]
    found = []
    with torch.no_grad():
        for first in range(0, len(asked), CHUNK_LEN):
            chunk = asked[first : first + CHUNK_LEN]
            sequences = np.zeros((len(chunk), history_len), dtype=np.int64)
            lengths = np.zeros(len(chunk), dtype=np.int64)
            for row, items in enumerate(chunk):
                recent = items[:-1][-history_len:]
                sequences[row, : len(recent)] = [known[item] for item in recent]
                lengths[row] = len(recent)
            scores = model.full_sort_predict(
                Interaction({"item_id_list": torch.from_numpy(sequences), "item_length": torch.from_numpy(lengths)})
            ).numpy()
            scores[:, 0] = -np.inf  # padding
            for row, items in enumerate(chunk):
                target = known[items[-1]]
                target_score = scores[row, target]
                scores[row, [known[item] for item in items[:-1]]] = -np.inf
                before = (scores[row] > target_score) | ((scores[row] == target_score) & (order < order[target]))
                before[0] = False
                found.append(int(before.sum()) + 1)
    return np.array(found)


def mean(values):
    """Mean and half the width of its 95 % interval; each value is another user's."""
    return {"mean": float(values.mean()), "half_width": 1.96 * float(values.std(ddof=1)) / math.sqrt(len(values))}


def main():
    inter_path, work_dir, seed, seconds, num_threads = sys.argv[1:6]
    torch.set_num_threads(int(num_threads))
    data_dir, file_name = os.path.split(os.path.abspath(inter_path))
    config = Config(
        model="SASRec",
        dataset=os.path.splitext(file_name)[0],
        config_dict={
            "data_path": os.path.dirname(data_dir),
            "checkpoint_dir": work_dir,
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
            "train_neg_sample_args": None,  # cross-entropy needs none
            "metrics": ["NDCG"],
            "topk": [TOP_LEN],
            "valid_metric": f"NDCG@{TOP_LEN}",
            "seed": int(seed),
            "use_gpu": False,
            "show_progress": False,
        },
    )
    init_seed(config["seed"], config["reproducibility"])
    model, dataset, training = train(config, float(seconds))
    found = ranks(model, dataset, read(inter_path), config["MAX_ITEM_LIST_LENGTH"])
    hits = found <= TOP_LEN
    names = ["n_layers", "n_heads", "hidden_size", "inner_size", "hidden_dropout_prob", "learning_rate", "loss_type"]
    names += ["train_batch_size", "stopping_step", "MAX_ITEM_LIST_LENGTH"]
    report = {
        "seed": int(seed),
        "num_users": len(found),
        "hr_at_10": mean(hits.astype(float)),
        "ndcg_at_10": mean(np.where(hits, 1 / np.log2(found + 1), 0.0)),
        "hyper_parameters": {name: config[name] for name in names},
        **training,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
