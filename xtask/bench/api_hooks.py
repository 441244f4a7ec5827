"""What Schemathesis must know of this API beyond its document.

Bodies that are called text/plain hold JSON, and those of NDJSON a value on each line. A batch with bad elements is
answered 200: each of them must then be listed in `rejected`. Whole numbers are written without a point. Scores are asked
for items that the catalogue has.
"""

import json

import schemathesis
from hypothesis import strategies as st
from schemathesis.core.parameters import ParameterLocation

BATCHES = {"/v1/events", "/v1/items"}
OF_KNOWN_ITEMS = {"/v1/score": "item_ids", "/v1/explain": "item_id"}
NUM_ITEMS = 40

LINES = st.lists(
    st.sampled_from(
        [
            b'{"event_id": "n-1", "kind": "click", "user_id": "u-1", "item_id": "i-1", "occurred_at": 1767225600000}',
            b'{"item_id": "i-3", "title": "Tea pot"}',
            b'"i-4"',
            b"{",
            b"",
        ]
    ),
    max_size=4,
).map(b"\n".join)
schemathesis.openapi.media_type("application/x-ndjson", LINES)


@schemathesis.serializer("text/plain")
def json_as_text(ctx, value):
    return json.dumps(value).encode()


def with_whole_numbers(value):
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return int(value)
    if isinstance(value, list):
        return [with_whole_numbers(element) for element in value]
    if isinstance(value, dict):
        return {name: with_whole_numbers(field) for name, field in value.items()}
    return value


def known_items(value):
    if isinstance(value, list):
        return [known_items(element) for element in value]
    return f"i-{1 + len(value) % NUM_ITEMS}" if isinstance(value, str) else value


def is_negative(case):
    return case.meta is not None and case.meta.is_negative_at(ParameterLocation.BODY)


@schemathesis.hook
def before_call(ctx, case, **kwargs):
    if not isinstance(case.body, (dict, list)):
        return
    case.body = with_whole_numbers(case.body)
    name = OF_KNOWN_ITEMS.get(case.path)
    if name is not None and not is_negative(case) and name in case.body:
        case.body[name] = known_items(case.body[name])


@schemathesis.check
def refused_elements_are_listed(ctx, response, case):
    """A batch that the schema forbids is refused, or names what of it was."""
    is_batch = case.path in BATCHES and case.method in {"POST", "PUT", "DELETE"}
    if is_batch and is_negative(case) and response.status_code == 200:
        assert response.json()["rejected"], "a batch that the schema forbids was accepted whole"
