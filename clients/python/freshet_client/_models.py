"""What is sent and what is answered; fields are those of the server's OpenAPI document."""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Optional, TypeVar

EventKind = Literal[
    "impression",
    "view",
    "click",
    "add_to_cart",
    "purchase",
    "like",
    "dislike",
    "rating",
    "skip",
    "watch",
]


def now_millis() -> int:
    """Milliseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000_000


def new_event_id() -> str:
    """A UUID of version 7 (RFC 9562, 5.7): 48 bits of milliseconds, then chance."""
    number = now_millis() << 80 | int.from_bytes(os.urandom(10), "big")
    number = number & ~(0xF << 76) | 0x7 << 76
    number = number & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=number))


@dataclass(frozen=True)
class Event:
    """One thing that a user did or saw. It keeps its id, so sending it again stores it once."""

    kind: EventKind
    user_id: str
    item_id: str
    occurred_at: int = field(default_factory=now_millis)
    """Milliseconds since 1970-01-01 UTC."""
    value: Optional[float] = None
    """Grade (a rating needs one), share watched or amount."""
    impression_id: Optional[str] = None
    position: Optional[int] = None
    propensity: Optional[float] = None
    model_version: Optional[int] = None
    event_id: str = field(default_factory=new_event_id)
    arm: Optional[str] = None
    """Of an impression: the arm that `recommend` answered, `experiment/arm`."""


@dataclass(frozen=True)
class Item:
    """A catalogue item."""

    item_id: str
    title: str
    text: Optional[str] = None
    attributes: dict[str, Any] = field(default_factory=dict)
    vectors: dict[str, list[float]] = field(default_factory=dict)
    available: bool = True


@dataclass(frozen=True)
class HistoryEvent:
    """An event of a history that is ranked for."""

    item_id: str
    kind: EventKind
    occurred_at: int


@dataclass(frozen=True)
class Rejection:
    """Why one element was not taken."""

    index: int
    """Position among what was sent."""
    code: str
    pointer: str
    """JSON pointer into the body of the batch, such as `/events/2/item_id`."""
    detail: str


@dataclass(frozen=True)
class Receipt:
    """What became of events or items. All that was not rejected is on the server's disk."""

    accepted: int
    duplicates: int
    """Events that it had already, and items that were just so already."""
    rejected: list[Rejection]
    offset: int
    """A version whose `learned_through` reaches it has learned from all of them."""


@dataclass(frozen=True)
class Ranked:
    """An item of a ranking."""

    item_id: str
    score: float
    propensity: Optional[float] = None
    """Only with exploration; send it along with the impression."""
    arm: Optional[str] = None
    """Only where lists are interleaved: whose item it is. Send it along with the impression."""


@dataclass(frozen=True)
class Ranking:
    """Items, best first."""

    model_version: int
    items: list[Ranked]
    arm: Optional[str] = None
    """Only in an experiment: the arm of the user. Send it along with the impressions."""


@dataclass(frozen=True)
class Score:
    """The score of an item; none where the version does not hold it."""

    item_id: str
    score: Optional[float]


@dataclass(frozen=True)
class Scores:
    """Scores in the order that was asked for."""

    model_version: int
    items: list[Score]


@dataclass(frozen=True)
class FoundItem:
    """An item that was looked for."""

    item_id: str
    score: float
    similarity: float
    """Cosine of both texts."""


@dataclass(frozen=True)
class Found:
    """Items, best first."""

    model_version: int
    items: list[FoundItem]


@dataclass(frozen=True)
class Status:
    """Where the loop stands; `raw` is the whole answer."""

    log_offset: int
    learned_through: Optional[int]
    version: Optional[int]
    device: Optional[str]
    raw: dict[str, Any]


def to_json(value: Any) -> dict[str, Any]:
    """The fields of a dataclass that are set."""
    named = ((entry.name, getattr(value, entry.name)) for entry in fields(value))
    return {name: held for name, held in named if held is not None}


Answer = TypeVar("Answer")


def from_json(kind: type[Answer], value: dict[str, Any]) -> Answer:
    """A dataclass from the fields that it knows; a newer server may send more."""
    return kind(**{entry.name: value[entry.name] for entry in fields(kind) if entry.name in value})  # type: ignore[arg-type]
