//! Feedback as the server takes it.

import { invalid } from './errors.js';
import { ID, isId } from './ids.js';
import { isBetween, isUint32 } from './numbers.js';

/** What the server takes in fields that may be left out, beside those of the history. */
const OPTIONAL = {
  eventId: [isId, ID],
  impressionId: [isId, ID],
  value: [Number.isFinite, 'a number'],
  position: [isUint32, 'a whole number from 0'],
  propensity: [(propensity) => isBetween(propensity, 0, 1) && propensity > 0, 'a number above 0, at most 1'],
  arm: [isId, ID],
  modelVersion: [(version) => Number.isSafeInteger(version) && version >= 0, 'the number of a version'],
};

/** Throws where the server would not take a field of the event. @param {any} event */
export function checkReport(event) {
  for (const [field, [isTaken, expected]] of Object.entries(OPTIONAL)) {
    const value = event[field] ?? undefined;
    if (value !== undefined && !isTaken(value)) throw invalid(field, expected, value);
  }
}

/** The wire form; fields that are not there are left out. */
export function wireEvent(event, user_id, liveVersion) {
  const { eventId, kind, itemId, occurredAt, value, impressionId, position, propensity, arm } = event;
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
    arm,
  };
}
