//! A small made-up world: a catalogue in topics, people with a taste in it, and fashions that change.
//!
//! ```text
//! what someone takes next = 80 % main topic, 15 % side topic, 5 % anything;
//!                           within a topic 75 % one of its few favourites, else any of it
//! ```
//! Everything is drawn from one seed, and event times are passed in. Not here: what anyone is shown.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use shared_model::event::{Event, EventKind, HistoryEvent, Item};
use shared_model::ids::{EventId, ItemId, UserId};

/// The first words of all titles.
pub const TOPICS: [&str; 10] = [
    "kettle", "lantern", "scarf", "violin", "kite", "atlas", "cactus", "skillet", "easel", "tent",
];
const ITEMS_PER_TOPIC: usize = 20;
const FAVOURITES_PER_TOPIC: usize = 4;
/// Events that someone remembers; more than any model attends to.
const HISTORY_LEN_MAX: usize = 50;

/// Catalogue and fashions.
#[derive(Debug)]
pub struct World {
    /// The catalogue; topics are blocks of it.
    pub items: Vec<Item>,
    favourites: Vec<Vec<usize>>,
    rng: StdRng,
    seed: u64,
    num_events: u64,
}

/// Someone with a taste.
#[derive(Debug, Clone)]
pub struct Person {
    /// Who.
    pub user_id: UserId,
    /// What they did, oldest first, as their page keeps it.
    pub history: Vec<HistoryEvent>,
    main_topic: usize,
    side_topic: usize,
}

impl World {
    /// A world; the same seed gives the same one.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let items = TOPICS
            .iter()
            .flat_map(|topic| (0..ITEMS_PER_TOPIC).map(move |idx| made_up_item(topic, idx)));
        let mut world = Self {
            items: items.collect(),
            favourites: Vec::new(),
            rng: StdRng::seed_from_u64(seed),
            seed,
            num_events: 0,
        };
        world.change_fashion();
        world
    }

    /// New people with tastes of their own.
    pub fn people(&mut self, num_people: usize) -> Vec<Person> {
        let first = self.rng.random_range(0..u32::MAX);
        let mut people = Vec::with_capacity(num_people);
        for idx in 0..num_people {
            let user_id =
                UserId::new(format!("person-{first}-{idx}")).expect("short and printable");
            let mut person = Person {
                user_id,
                history: Vec::new(),
                main_topic: 0,
                side_topic: 0,
            };
            self.change_taste(&mut person);
            people.push(person);
        }
        people
    }

    /// What someone wants next.
    pub fn wanted(&mut self, person: &Person) -> ItemId {
        let topic = match self.rng.random_range(0..100) {
            0..80 => person.main_topic,
            80..95 => person.side_topic,
            _ => self.rng.random_range(0..TOPICS.len()),
        };
        let is_favourite = self.rng.random_range(0..100) < 75;
        let within = if is_favourite {
            *self.favourites[topic]
                .choose(&mut self.rng)
                .expect("a topic has favourites")
        } else {
            self.rng.random_range(0..ITEMS_PER_TOPIC)
        };
        self.items[topic * ITEMS_PER_TOPIC + within].item_id.clone()
    }

    /// Someone clicks an item; it goes into their history, and the event is theirs to post.
    pub fn click(&mut self, person: &mut Person, item_id: &ItemId, occurred_at: i64) -> Event {
        self.num_events += 1;
        if person.history.len() == HISTORY_LEN_MAX {
            person.history.remove(0);
        }
        person.history.push(HistoryEvent {
            item_id: item_id.clone(),
            kind: EventKind::Click,
            occurred_at,
        });
        Event {
            event_id: EventId::new(format!("{}-{}", self.seed, self.num_events))
                .expect("short and printable"),
            kind: EventKind::Click,
            user_id: person.user_id.clone(),
            item_id: item_id.clone(),
            occurred_at,
            value: None,
            model_version: None,
            impression_id: None,
            position: None,
            propensity: None,
            arm: None,
        }
    }

    /// Someone takes what they want next.
    pub fn next_click(&mut self, person: &mut Person, occurred_at: i64) -> Event {
        let item_id = self.wanted(person);
        self.click(person, &item_id, occurred_at)
    }

    /// A past: everyone clicks `num_rounds` times, the last time at `until_millis`, a round every `round_millis`.
    pub fn past(
        &mut self,
        people: &mut [Person],
        num_rounds: usize,
        round_millis: i64,
        until_millis: i64,
    ) -> Vec<Event> {
        let mut events = Vec::with_capacity(people.len() * num_rounds);
        for rounds_left in (0..num_rounds).rev() {
            let occurred_at = until_millis - rounds_left as i64 * round_millis; // a few dozen rounds
            for person in people.iter_mut() {
                events.push(self.next_click(person, occurred_at));
            }
        }
        events
    }

    /// Other items become the favourites of every topic.
    pub fn change_fashion(&mut self) {
        let before = std::mem::take(&mut self.favourites);
        for topic_idx in 0..TOPICS.len() {
            let is_new = |item_idx: &usize| {
                before
                    .get(topic_idx)
                    .is_none_or(|known| !known.contains(item_idx))
            };
            let fresh: Vec<usize> = (0..ITEMS_PER_TOPIC).filter(is_new).collect();
            let chosen = fresh.choose_multiple(&mut self.rng, FAVOURITES_PER_TOPIC);
            self.favourites.push(chosen.copied().collect());
        }
    }

    /// Someone falls for other topics.
    pub fn change_taste(&mut self, person: &mut Person) {
        person.main_topic = self.rng.random_range(0..TOPICS.len());
        person.side_topic = self.rng.random_range(0..TOPICS.len());
    }
}

fn made_up_item(topic: &str, idx: usize) -> Item {
    Item {
        item_id: ItemId::new(format!("{topic}-{idx}")).expect("short and printable"),
        title: format!("{topic} number {idx}"),
        text: None,
        attributes: serde_json::Map::new(),
        vectors: std::collections::BTreeMap::new(),
        available: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_past_and_every_event_an_id_of_its_own() {
        let past = |seed| {
            let mut world = World::new(seed);
            let mut people = world.people(5);
            world.past(&mut people, 4, 1000, 1_000_000)
        };
        let events = past(7);
        assert_eq!(events, past(7));
        assert_ne!(events, past(8));
        let ids: std::collections::BTreeSet<_> =
            events.iter().map(|event| &event.event_id).collect();
        assert_eq!(ids.len(), 20);
    }

    #[test]
    fn a_change_of_fashion_replaces_every_favourite() {
        let mut world = World::new(7);
        let before = world.favourites.clone();
        world.change_fashion();
        for (before, after) in before.iter().zip(&world.favourites) {
            assert_eq!(after.len(), FAVOURITES_PER_TOPIC);
            assert!(after.iter().all(|item_idx| !before.contains(item_idx)));
        }
    }
}
