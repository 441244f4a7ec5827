//! Makes what pages embed texts with: in the background, kept over a restart.
//!
//! ```text
//! newest versions ─► their generations ─► file in the data folder, or made now ─► packs
//! ```
//! A page asks for its generation when it first embeds a text. Until the file is made, which takes some ten seconds of
//! one core, it is told to ask again. Losing a file costs that time and nothing else.
//! Where a recipe is to be followed, which takes minutes, pages have the whole encoder until it has been; and for as long
//! as the gate refuses what it makes.
//! What the encoder learns is a change of low rank, which pages get beside the file of the encoder as it was loaded.
//! A file is fitted to the texts of its day, so another is made once there are twice as many items; whoever was told of
//! the one before can still fetch it. A failure is tried again after a pause.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use shared_model::manifest::Channel;
use shared_model::text::LowRankChange;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::KeeperError;
use super::file::{Beside, Found, file_name};
use super::follow::{Teacher, follow};
use super::packs::{TextPack, TextPacks};
use super::source::OfGeneration;
use crate::catalogue::Catalogue;
use crate::config::Config;
use crate::event_log::EventLog;
use crate::ladder::{LadderError, Recipe};
use crate::priority::stand_back;
use crate::publish::Publisher;
use crate::reserve::Reserve;
use crate::text_pack::{PackSource, pack};

/// How soon a new generation is noticed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// After a failure; doubled with each in a row.
const PAUSE_MIN: Duration = Duration::from_secs(30);
const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// What packs are made of, and where they go.
#[derive(Clone)]
pub struct KeeperParts {
    /// For the routes.
    pub packs: TextPacks,
    /// Settings.
    pub config: Arc<Config>,
    /// What `publish.text_recipe` says.
    pub recipe: Option<Recipe>,
    /// Events that the gate compares on.
    pub log: EventLog,
    /// Texts that files are fitted to.
    pub catalogue: Catalogue,
    /// Says which generation pages rank with.
    pub publisher: Publisher,
    /// Room that a file must leave to the log.
    pub reserve: Arc<Reserve>,
}

/// When a generation is looked at again.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Again {
    /// The small encoder has no file that could be another.
    Never,
    /// Pages have something that will do until this is made.
    Now,
    /// Once there are as many items.
    Grown { num_items: usize },
    /// After a failure.
    Later { at: Instant, pause: Duration },
}

impl Again {
    /// Pause after a failure, where `last` says what was waited for before.
    fn pause_after(last: Option<Self>) -> Duration {
        match last {
            Some(Self::Later { pause, .. }) => (2 * pause).min(PAUSE_MAX),
            Some(Self::Never | Self::Now | Self::Grown { .. }) | None => PAUSE_MIN,
        }
    }

    fn is_due(self, num_items: usize, now: Instant) -> bool {
        match self {
            Self::Never => false,
            Self::Now => true,
            Self::Grown { num_items: wanted } => num_items >= wanted,
            Self::Later { at, .. } => now >= at,
        }
    }
}

/// The generation that packs are made for: that of the newest version. A cohort has no other, since a release with texts
/// of its own goes to everyone.
#[must_use]
pub fn wanted_generation(publisher: &Publisher) -> Option<u32> {
    let newest = publisher.newest(Channel::Stable)?;
    Some(newest.manifest.encoder_generation)
}

/// Makes what is missing, until the server stops.
pub async fn keep(parts: KeeperParts, mut stopping: watch::Receiver<bool>) {
    if parts.config.publish.text_bytes_max == 0 {
        return;
    }
    let mut interval = tokio::time::interval(LOOK_INTERVAL);
    let mut looked: Option<(u32, Again)> = None;
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            _ = stopping.changed() => return,
        }
        let Some(generation) = wanted_generation(&parts.publisher) else {
            continue;
        };
        let last = looked.filter(|(of, _)| *of == generation);
        let last = last.map(|(_, again)| again);
        let num_items = parts.catalogue.num_ids();
        if last.is_some_and(|again| !again.is_due(num_items, Instant::now())) {
            continue;
        }
        let making = parts.clone().start(generation, num_items, stopping.clone());
        let made = tokio::select! {
            made = making => made.unwrap_or(Err(KeeperError::Thread)),
            _ = stopping.changed() => return, // what is not written yet is made at the next start
        };
        let again = parts.take(generation, made, last);
        looked = Some((generation, again));
    }
}

impl KeeperParts {
    /// Hands out what was made and says when to look again.
    fn take(
        &self,
        generation: u32,
        made: Result<(TextPack, Again), KeeperError>,
        last: Option<Again>,
    ) -> Again {
        match made {
            Ok((pack, again)) => {
                self.packs.put(generation, pack);
                again
            }
            Err(error) => {
                let has_too_few = matches!(
                    error,
                    KeeperError::Ladder(LadderError::NothingToCompare { .. })
                );
                let pause = if has_too_few {
                    PAUSE_MAX
                } else {
                    Again::pause_after(last)
                };
                let retry_secs = pause.as_secs();
                if self.packs.of(generation).is_some() {
                    tracing::warn!(%error, retry_secs, "pages keep the text encoder that they have");
                } else {
                    tracing::error!(%error, retry_secs, "pages cannot embed texts: the encoder cannot be packed");
                    self.packs.put(generation, TextPack::Failed);
                }
                let at = Instant::now() + pause;
                Again::Later { at, pause }
            }
        }
    }

    /// Makes the pack of a generation on a thread of its own, which stands back as the trainer does.
    fn start(
        self,
        generation: u32,
        num_items: usize,
        stopping: watch::Receiver<bool>,
    ) -> oneshot::Receiver<Result<(TextPack, Again), KeeperError>> {
        let (sender, receiver) = oneshot::channel();
        let making = move || {
            stand_back(self.config.train.niceness);
            let made = self.make(generation, num_items, &stopping);
            sender.send(made).ok(); // nobody waits any more where the server stops
        };
        let thread = thread::Builder::new().name("text-encoder".to_owned());
        if let Err(error) = thread.spawn(making) {
            tracing::error!(%error, "no thread for the text encoder"); // the sender is gone, which is heard
        }
        receiver
    }

    /// The pack of a generation: as it was found, or made now.
    fn make(
        &self,
        generation: u32,
        num_items: usize,
        stopping: &watch::Receiver<bool>,
    ) -> Result<(TextPack, Again), KeeperError> {
        let has_file = self
            .packs
            .of(generation)
            .is_some_and(|pack| pack.has_file());
        let whole = self.whole_recipe();
        let name = file_name(generation, self.recipe.as_ref().unwrap_or(&whole));
        let found = Found::read(&self.path(&name));
        let found = found.and_then(|found| Some((self.pack_of(&found)?, grown(found.num_items))));
        let has_grown = match found {
            Some((pack, again)) if !again.is_due(num_items, Instant::now()) => {
                return Ok((pack, again));
            }
            // Better than nothing until another is made.
            Some((pack, _)) if !has_file => return Ok((pack, Again::Now)),
            found => found.is_some(),
        };
        let Some(encoder) = OfGeneration::load(&self.config, generation)? else {
            return Ok((TextPack::Small, Again::Never));
        };
        let whole_name = file_name(encoder.loaded_generation(), &whole);
        let asked = Asked {
            num_items,
            has_file,
            whole_name: &whole_name,
        };
        let pack = match &self.recipe {
            None => return self.whole(&encoder, asked),
            Some(_) if !has_file => return Ok((self.whole(&encoder, asked)?.0, Again::Now)),
            Some(recipe) => {
                let source = encoder.source()?;
                let teacher = Teacher {
                    source: &source,
                    generation,
                    num_items,
                    may_stay: !has_grown,
                };
                match follow(self, recipe, teacher, stopping)? {
                    Some(pack) => pack,
                    None => self.whole(&encoder, asked)?.0,
                }
            }
        };
        let made = self.found_of(&pack, num_items);
        if let Some(made) = &made {
            self.keep(made, &name, asked, &pack);
        }
        Ok((pack, grown(made.map_or(num_items, |made| made.num_items))))
    }

    /// What a file of the data folder makes with what it belongs to; nothing where that is gone.
    fn pack_of(&self, found: &Found) -> Option<TextPack> {
        let change = (found.id, found.bytes.clone());
        match LowRankChange::packed_base(&found.bytes) {
            None => Some(TextPack::Packed(found.id, found.bytes.clone())),
            Some(id) => {
                let base = Found::by_id(&self.config.server.data_dir, id)?;
                let base = (base.id, base.bytes);
                Some(TextPack::Changed { base, change })
            }
        }
    }

    /// The file of the data folder that stands for a pack. A change is fitted to as many items as what it belongs to.
    fn found_of(&self, pack: &TextPack, num_items: usize) -> Option<Found> {
        let (id, bytes) = pack.files().last()?;
        let fitted = match pack {
            TextPack::Changed { base, .. } => Found::by_id(&self.config.server.data_dir, base.0),
            TextPack::Packed(..) | TextPack::Small | TextPack::Failed => None,
        };
        Some(Found {
            id: *id,
            num_items: fitted.map_or(num_items, |base| base.num_items),
            bytes: bytes.clone(),
        })
    }

    fn keep(&self, made: &Found, name: &str, asked: Asked<'_>, pack: &TextPack) {
        let mut ids = self.packs.ids();
        ids.extend(pack.files().map(|(id, _)| *id));
        let beside = Beside {
            name: asked.whole_name,
            ids: &ids,
        };
        made.keep(&self.config.server.data_dir, name, beside, &self.reserve);
    }

    /// All of an encoder: the file of the loaded one, and what has been learned since, where that is smaller than another
    /// file would be.
    fn whole(
        &self,
        encoder: &OfGeneration,
        asked: Asked<'_>,
    ) -> Result<(TextPack, Again), KeeperError> {
        let (base, again) = self.whole_as_loaded(encoder, asked)?;
        let Some(change) = encoder.change() else {
            return Ok((TextPack::Packed(base.id, base.bytes), again));
        };
        let change = change.to_packed_bytes(base.id);
        if !TextPack::is_worth_it(&change, &base.bytes) {
            return Ok((TextPack::packed(self.packed(encoder.source()?)?), again));
        }
        tracing::info!(
            bytes = change.len(),
            beside_bytes = base.bytes.len(),
            "pages get what the text encoder has learned beside the file of the loaded one"
        );
        Ok((TextPack::changed((base.id, base.bytes), change), again))
    }

    /// The file of the encoder as it was loaded: that of the data folder, or one that is made and put there now.
    fn whole_as_loaded(
        &self,
        encoder: &OfGeneration,
        asked: Asked<'_>,
    ) -> Result<(Found, Again), KeeperError> {
        let num_items = asked.num_items;
        if let Some(found) = Found::read(&self.path(asked.whole_name)) {
            let again = grown(found.num_items);
            if !again.is_due(num_items, Instant::now()) {
                return Ok((found, again));
            }
            if !asked.has_file {
                return Ok((found, Again::Now)); // better than nothing until another is made
            }
        }
        let pack = TextPack::packed(self.packed(encoder.loaded_source()?)?);
        let made = self.found_of(&pack, num_items).expect("it was packed");
        self.keep(&made, asked.whole_name, asked, &pack);
        Ok((made, grown(num_items)))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.config.server.data_dir.join(name)
    }

    /// What leaves an encoder as it is.
    fn whole_recipe(&self) -> Recipe {
        Recipe {
            bytes_max: self.config.publish.text_bytes_max,
            ..Recipe::default()
        }
    }

    /// All of an encoder in one file.
    fn packed(&self, source: PackSource) -> Result<Vec<u8>, KeeperError> {
        let started = Instant::now();
        let items = self.catalogue.items();
        let texts = items.iter().map(|item| item.full_text());
        let bytes = pack(source, texts, self.config.publish.text_bytes_max)?;
        tracing::info!(
            bytes = bytes.len(),
            num_items = items.len(),
            seconds = started.elapsed().as_secs_f32(),
            "the text encoder was packed for pages"
        );
        Ok(bytes)
    }
}

/// What a file is wanted for.
#[derive(Debug, Clone, Copy)]
struct Asked<'a> {
    /// Of the catalogue.
    num_items: usize,
    /// Whether pages have something to embed texts with.
    has_file: bool,
    /// Name of the file of the encoder as it was loaded.
    whole_name: &'a str,
}

/// A file for a catalogue is good until there are twice as many items.
fn grown(num_items: usize) -> Again {
    Again::Grown {
        num_items: num_items.max(1).saturating_mul(2),
    }
}

/// Whether a file that was fitted to `fitted` items has to be made again for `num_items`.
pub(super) fn is_outgrown(fitted: usize, num_items: usize) -> bool {
    grown(fitted).is_due(num_items, Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_is_made_for_twice_the_items_and_after_growing_pauses() {
        let now = Instant::now();
        assert!(!Again::Never.is_due(usize::MAX, now));
        for (num_items, due_at) in [(0, 2), (1, 2), (100, 200), (usize::MAX, usize::MAX)] {
            assert!(!grown(num_items).is_due(due_at - 1, now));
            assert!(grown(num_items).is_due(due_at, now));
        }
        let mut last = Some(grown(1));
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let pause = Again::pause_after(last);
            let at = now + pause;
            let later = Again::Later { at, pause };
            assert!(!later.is_due(1, at - Duration::from_millis(1)) && later.is_due(1, at));
            pauses.push(pause.as_secs());
            last = Some(later);
        }
        assert_eq!(pauses, [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]);
        assert_eq!(Again::pause_after(None), PAUSE_MIN);
    }
}
