//! What a rule would do: the lists of some users with it and without.

use schemars::JsonSchema;
use serde::Serialize;
use shared_model::ids::{ItemId, Version};

/// Users whose lists are made, those seen last.
pub const NUM_USERS: usize = 100;
/// Items of a list.
pub const NUM_PLACES: usize = 10;

/// Lists that would change.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Preview {
    /// Version that ranked.
    pub model_version: Version,
    /// Users whose lists were made.
    pub num_users: usize,
    /// Users whose list would be another.
    pub num_changed: usize,
    /// One list that would change: that of the first such user.
    pub sample: Option<ChangedList>,
}

/// A list before and after.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ChangedList {
    /// As it is.
    pub before: Vec<ItemId>,
    /// As it would be.
    pub after: Vec<ItemId>,
}

impl Preview {
    /// Compares the lists of the same users, in the same order.
    pub(crate) fn of(
        model_version: Version,
        before: Vec<Vec<ItemId>>,
        after: Vec<Vec<ItemId>>,
    ) -> Self {
        let num_users = before.len();
        let pairs = before.into_iter().zip(after);
        let mut changed = pairs.filter(|(before, after)| before != after);
        let sample = changed.next();
        Self {
            model_version,
            num_users,
            num_changed: usize::from(sample.is_some()) + changed.count(),
            sample: sample.map(|(before, after)| ChangedList { before, after }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_that_change_are_counted_and_the_first_is_shown() {
        let list = |ids: &[&str]| -> Vec<ItemId> {
            ids.iter()
                .map(|id| ItemId::new(*id).expect("short"))
                .collect()
        };
        let before = vec![list(&["a"]), list(&["a", "b"]), list(&["b"])];
        let after = vec![list(&["a"]), list(&["b"]), list(&["a"])];
        let preview = Preview::of(Version(3), before.clone(), after);
        assert_eq!((preview.num_users, preview.num_changed), (3, 2));
        let sample = preview.sample.expect("two change");
        assert_eq!(
            (sample.before, sample.after),
            (list(&["a", "b"]), list(&["b"]))
        );
        let same = Preview::of(Version(3), before.clone(), before);
        assert_eq!((same.num_changed, same.sample), (0, None));
    }
}
