// A shop that tells Freshet what is sold and clicked, and asks what to show.

import { Client, ProblemError } from 'freshet-client';

const client = new Client({
  url: process.env.FRESHET_URL,
  adminUrl: process.env.FRESHET_ADMIN,
  adminToken: process.env.FRESHET_TOKEN,
});

// The catalogue. Putting an item as it is already costs nothing.
const numbers = Array.from({ length: 20 }, (_, number) => number);
const items = await client.putItems(numbers.map((number) => ({ itemId: `tea-${number}`, title: `Tea pot ${number}` })));
console.log(`items: ${items.accepted} accepted, ${items.duplicates} unchanged`);

// Feedback. Client.event gives every event an id of its own, so sending it twice stores it once.
const clicked = ['tea-0', 'tea-1', 'tea-2', 'tea-3', 'tea-4', 'no-such-item'];
const events = clicked.map((itemId) => Client.event({ kind: 'click', userId: 'ada', itemId }));
const receipt = await client.sendEvents(events);
const again = await client.sendEvents(events);
console.log(`events: ${receipt.accepted} accepted, then ${again.duplicates} known already`);
for (const { pointer, code, detail } of receipt.rejected) console.log(`rejected: ${pointer}: ${code}: ${detail}`);

// What a user is to see, once a version has learned from it.
await client.waitUntilLearned(receipt.offset);
const ranking = await client.recommend({ userId: 'ada', k: 3 });
console.log(`recommended: ${ranking.items.length} of 15 that ada has not seen`);
const scores = await client.score({ itemIds: ['tea-0', 'tea-19'], userId: 'ada' });
console.log(`scored: ${scores.items.filter(({ score }) => score !== null).map(({ itemId }) => itemId)}`);

// A request that makes no sense says where.
try {
  await client.recommend({ userId: 'ada', k: 0 });
} catch (error) {
  if (!(error instanceof ProblemError)) throw error;
  console.log(`refused: ${error.status} at ${error.errors[0].pointer}`);
}

// What operators do: look at versions, go back to one, give out and forget what is held of a user.
const { rows } = await client.versions({ limit: 1 });
const answer = await client.rollback(rows[0].number, { by: 'ada' });
console.log(`rolled back: ${answer.version > rows[0].number}`);
const numHeld = async () => {
  let count = 0;
  for await (const document of client.exportUser('ada')) count += document.events.length;
  return count;
};
const held = await numHeld();
await client.eraseUser('ada');
console.log(`erased: ${held} events, ${await numHeld()} left`);
