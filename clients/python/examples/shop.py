"""A shop that tells Freshet what is sold and clicked, and asks what to show."""

import os

from freshet_client import Client, Event, Item, ProblemError

client = Client(
    os.environ.get("FRESHET_URL", "http://127.0.0.1:7878"),
    admin_url=os.environ.get("FRESHET_ADMIN", "http://127.0.0.1:7879"),
    admin_token=os.environ.get("FRESHET_TOKEN"),
)

# The catalogue. Putting an item as it is already costs nothing.
items = [Item(f"tea-{number}", f"Tea pot number {number}") for number in range(20)]
receipt = client.put_items(items)
print(f"items: {receipt.accepted} accepted, {receipt.duplicates} unchanged")

# Feedback. Every event has an id of its own, so sending it twice stores it once.
events = [Event("click", user_id="ada", item_id=f"tea-{number}") for number in range(5)]
events.append(Event("click", user_id="ada", item_id="no-such-item"))
receipt = client.send_events(events)
again = client.send_events(events)
print(f"events: {receipt.accepted} accepted, then {again.duplicates} known already")
for rejection in receipt.rejected:
    print(f"rejected: {rejection.pointer}: {rejection.code}: {rejection.detail}")

# What a user is to see, once a version has learned from it.
status = client.wait_until_learned(receipt.offset)
ranking = client.recommend(user_id="ada", k=3)
print(f"recommended: {len(ranking.items)} of 15 that ada has not seen")
scores = client.score(["tea-0", "tea-19"], user_id="ada")
print(f"scored: {[score.item_id for score in scores.items if score.score is not None]}")

# A request that makes no sense says where.
try:
    client.recommend(user_id="ada", k=0)
except ProblemError as error:
    print(f"refused: {error.status} at {error.errors[0].pointer}")

# What operators do: look at versions, go back to one, give out and forget what is held of a user.
newest = client.versions(limit=1)["rows"][0]["number"]
answer = client.rollback(newest, by="ada")
print(f"rolled back: {answer['version'] > newest}")
held = sum(len(document["events"]) for document in client.export_user("ada"))
client.erase_user("ada")
left = sum(len(document["events"]) for document in client.export_user("ada"))
print(f"erased: {held} events, {left} left")
