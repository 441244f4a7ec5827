//! Feedback as the server takes it.

/** The wire form; fields that are not there are left out. */
export function wireEvent(event, user_id, liveVersion) {
  const { eventId, kind, itemId, occurredAt, value, impressionId, position, propensity } = event;
  return {
    event_id: eventId,
    kind,
    user_id,
    item_id: itemId,
    occurred_at: occurredAt,
    value,
    model_version: event.modelVersion ?? liveVersion ?? undefined,
    impression_id: impressionId,
    position,
    propensity,
  };
}
