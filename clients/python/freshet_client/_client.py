"""The calls of a server, one method each."""

from __future__ import annotations

import json
import time
import urllib.parse
from typing import Any, Iterable, Iterator, Optional, Sequence

from ._models import (
    Event,
    Found,
    FoundItem,
    HistoryEvent,
    Item,
    Ranked,
    Ranking,
    Receipt,
    Rejection,
    Score,
    Scores,
    Status,
    from_json,
    to_json,
)
from ._transport import FreshetError, Transport

BATCH_LEN_MAX = 500
"""Half of what a server takes by default."""
BATCH_BYTES_MAX = 1_000_000
"""Half of what a server takes by default, before compression."""


class Client:
    """A server. It keeps no connection and no thread, so it may be shared and needs no closing.

    Calls that are safe to repeat are sent up to `tries_max` times, with waits that double and heed `Retry-After`.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:7878",
        *,
        ingest_key: Optional[str] = None,
        read_key: Optional[str] = None,
        admin_url: str = "http://127.0.0.1:7879",
        admin_token: Optional[str] = None,
        timeout_secs: float = 10.0,
        tries_max: int = 5,
    ) -> None:
        """`admin_token` opens everything, and what `ingest_key` and `read_key` open where they are not given."""
        self._public = Transport(url, timeout_secs, tries_max)
        self._admin = Transport(admin_url, timeout_secs, tries_max)
        self._ingest_key = ingest_key or admin_token
        self._read_key = read_key or admin_token
        self._admin_token = admin_token

    def send_events(self, events: Iterable[Event], *, dry_run: bool = False) -> Receipt:
        """Sends events in batches. Each is accepted, known already, or rejected with a reason.

        Where a batch cannot be sent this raises, and batches before it are stored: send the same events again.
        """
        bodies = ((to_json(event) for event in events), "events", "POST", self._ingest_key)
        return self._send(*bodies, dry_run)

    def put_items(self, items: Iterable[Item], *, dry_run: bool = False) -> Receipt:
        """Adds or replaces catalogue items."""
        return self._send((to_json(item) for item in items), "items", "PUT", self._admin_token, dry_run)

    def delete_items(self, item_ids: Iterable[str], *, dry_run: bool = False) -> Receipt:
        """Takes items out of the catalogue."""
        return self._send(item_ids, "item_ids", "DELETE", self._admin_token, dry_run)

    def recommend(
        self,
        *,
        user_id: Optional[str] = None,
        history: Optional[Sequence[HistoryEvent]] = None,
        k: int = 10,
        candidates: Optional[Sequence[str]] = None,
        exclude_seen: bool = True,
        place: Optional[str] = None,
    ) -> Ranking:
        """The best `k` items for a user whose history the server keeps, or for a history.

        With `place` and `user_id`, the experiment that runs there decides how they are ranked.
        """
        body = _question(user_id, history, candidates) | {"k": k, "exclude_seen": exclude_seen}
        if place is not None:
            body["place"] = place
        answer = self._ask("/v1/recommend", body)
        ranked = [from_json(Ranked, item) for item in answer["items"]]
        return Ranking(answer["model_version"], ranked, answer.get("arm"))

    def score(
        self,
        item_ids: Sequence[str],
        *,
        user_id: Optional[str] = None,
        history: Optional[Sequence[HistoryEvent]] = None,
    ) -> Scores:
        """Scores of given items."""
        answer = self._ask("/v1/score", _question(user_id, history, None) | {"item_ids": list(item_ids)})
        return Scores(answer["model_version"], [from_json(Score, item) for item in answer["items"]])

    def search(
        self,
        text: str,
        *,
        k: int = 10,
        taste: float = 0.0,
        user_id: Optional[str] = None,
        history: Optional[Sequence[HistoryEvent]] = None,
        candidates: Optional[Sequence[str]] = None,
    ) -> Found:
        """Items whose texts are like a text; `taste` from 0 to 1 weighs in the user's."""
        body = _question(user_id, history, candidates) | {"text": text, "k": k, "taste": taste}
        answer = self._ask("/v1/search", body)
        return Found(answer["model_version"], [from_json(FoundItem, item) for item in answer["items"]])

    def status(self) -> Status:
        """Where the loop stands."""
        answer = self._public.request("GET", "/v1/status", self._read_key)
        return from_json(Status, answer | {"raw": answer})

    def wait_until_learned(self, offset: int, timeout_secs: float = 30.0) -> Status:
        """Waits for a version that has learned from everything before a log offset, such as a receipt's."""
        deadline = time.monotonic() + timeout_secs
        while True:
            status = self.status()
            if status.learned_through is not None and status.learned_through >= offset:
                return status
            if time.monotonic() > deadline:
                raise FreshetError(
                    f"no version has learned through {offset} in {timeout_secs} s, the newest is at {status.learned_through}"
                )
            time.sleep(0.1)

    def export_user(self, user_id: str) -> Iterator[dict[str, Any]]:
        """Everything that the server holds of a user, in as many documents as it takes."""
        path = f"/v1/users/{urllib.parse.quote(user_id, safe='')}"
        start: Optional[int] = 0
        while start is not None:
            document = self._admin.request("GET", f"{path}?from={start}", self._admin_token)
            yield document
            start = document["next_from"]

    def erase_user(self, user_id: str) -> dict[str, Any]:
        """Takes all events of a user out of the log for good; answers once they are off the disk."""
        path = f"/v1/users/{urllib.parse.quote(user_id, safe='')}"
        return self._admin.request("DELETE", path, self._admin_token)

    def versions(self, *, limit: int = 50, before: Optional[int] = None) -> dict[str, Any]:
        """Rows of the ledger, newest first, and `next_before` for older ones."""
        end = "" if before is None else f"&before={before}"
        return self._admin.request("GET", f"/v1/versions?limit={limit}{end}", self._admin_token)

    def rollback(self, version: int, *, by: Optional[str] = None) -> dict[str, Any]:
        """Returns everyone to an earlier version, under a new number, and sets aside what was learned since."""
        order = {"order": "rollback", "version": version} | ({} if by is None else {"by": by})
        body = json.dumps(order).encode()
        return self._admin.request("POST", "/v1/rollout", self._admin_token, body, is_idempotent=False)

    def _ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._public.request("POST", path, self._read_key, json.dumps(body).encode())

    def _send(
        self, elements: Iterable[Any], name: str, method: str, key: Optional[str], dry_run: bool
    ) -> Receipt:
        path = "/v1/events" if name == "events" else "/v1/items"
        path += "?dry_run=true" if dry_run else ""
        accepted = duplicates = offset = num_sent = 0
        rejected: list[Rejection] = []
        for batch in _batches(elements):
            body = b'{"%b":[%b]}' % (name.encode(), b",".join(batch))
            answer = self._public.request(method, path, key, body, may_pack=True)
            accepted += answer["accepted"]
            duplicates += answer.get("duplicates", 0) + answer.get("unchanged", 0)
            offset = max(offset, answer["offset"])
            for rejection in answer["rejected"]:
                index = num_sent + rejection["index"]
                rejected.append(from_json(Rejection, rejection | {"index": index}))
            num_sent += len(batch)
        return Receipt(accepted, duplicates, rejected, offset)


def _question(
    user_id: Optional[str],
    history: Optional[Sequence[HistoryEvent]],
    candidates: Optional[Sequence[str]],
) -> dict[str, Any]:
    question: dict[str, Any] = {}
    if user_id is not None:
        question["user_id"] = user_id
    if history is not None:
        question["history"] = [to_json(event) for event in history]
    if candidates is not None:
        question["candidates"] = list(candidates)
    return question


def _batches(elements: Iterable[Any]) -> Iterator[list[bytes]]:
    """Elements as JSON, as many at a time as a server takes. Infinite and missing numbers are no JSON and raise."""
    batch: list[bytes] = []
    num_bytes = 0
    for element in elements:
        text = json.dumps(element, allow_nan=False, separators=(",", ":")).encode()
        if batch and (len(batch) == BATCH_LEN_MAX or num_bytes + len(text) > BATCH_BYTES_MAX):
            yield batch
            batch, num_bytes = [], 0
        batch.append(text)
        num_bytes += len(text) + 1
    if batch:
        yield batch
