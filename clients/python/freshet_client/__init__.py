"""Client of a Freshet server, on the standard library alone."""

from ._client import Client
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
    new_event_id,
)
from ._transport import FieldError, FreshetError, ProblemError, TransportError

__all__ = [
    "Client",
    "Event",
    "FieldError",
    "Found",
    "FoundItem",
    "FreshetError",
    "HistoryEvent",
    "Item",
    "ProblemError",
    "Ranked",
    "Ranking",
    "Receipt",
    "Rejection",
    "Score",
    "Scores",
    "Status",
    "TransportError",
    "new_event_id",
]
