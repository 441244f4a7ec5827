"""A data set with bursts of bots in it, for `freshet ablate` to compare settings against noise.

with_bots.py DATASET_DIR OUT_DIR

Adds ten campaigns, evenly over the last fifth of the events: four new users each post 300 events in five minutes,
in turn on the same four items, which are drawn among those with fewer than ten events. Everything else is copied.
"""

import random
import shutil
import sys
from collections import Counter
from pathlib import Path

NUM_CAMPAIGNS = 10
NUM_BOTS = 4
NUM_ITEMS = 4
EVENTS_PER_BOT = 300
CAMPAIGN_SECS = 300


def main():
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    with open(source / "events.tsv", encoding="utf-8") as file:
        header = next(file).rstrip("\n").split("\t")
        events = [line.rstrip("\n").split("\t") for line in file]
    user, item, timestamp = (header.index(name) for name in ("user_id", "item_id", "timestamp"))
    events.sort(key=lambda event: int(event[timestamp]))
    times_seen = Counter(event[item] for event in events)
    obscure = sorted(name for name, count in times_seen.items() if count < 10)
    rng = random.Random(1)
    first = len(events) * 4 // 5
    bots = []
    for campaign in range(NUM_CAMPAIGNS):
        like = events[first + (len(events) - first) * campaign // NUM_CAMPAIGNS]
        items = rng.sample(obscure, NUM_ITEMS)
        for bot in range(NUM_BOTS):
            for number in range(EVENTS_PER_BOT):
                event = list(like)  # the columns that are not told here
                event[user] = f"bot-{campaign}-{bot}"
                event[item] = items[number % NUM_ITEMS]
                event[timestamp] = str(int(like[timestamp]) + number * CAMPAIGN_SECS // EVENTS_PER_BOT)
                bots.append(event)
    events = sorted(events + bots, key=lambda event: int(event[timestamp]))
    target.mkdir(parents=True)
    shutil.copy(source / "items.tsv", target / "items.tsv")
    with open(target / "events.tsv", "w", encoding="utf-8") as file:
        file.writelines("\t".join(row) + "\n" for row in [header, *events])


if __name__ == "__main__":
    main()
