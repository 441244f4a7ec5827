"""What Schemathesis must know of this API beyond its document.

Bodies that are called text/plain hold JSON, and those of NDJSON a value on each line. A batch with bad elements is
answered 200: each of them must then be listed in `rejected`.
"""

import json

import schemathesis
from hypothesis import strategies as st

BATCHES = {"/v1/events", "/v1/items"}

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


@schemathesis.check
def refused_elements_are_listed(ctx, response, case):
    """A batch that the schema forbids is refused, or names what of it was."""
    is_batch = case.path in BATCHES and case.method in {"POST", "PUT", "DELETE"}
    is_negative = case.meta is not None and case.meta.generation.mode.is_negative
    if is_batch and is_negative and response.status_code == 200:
        assert response.json()["rejected"], "a batch that the schema forbids was accepted whole"
