//! Following pages: they apply and verify every version, but do not rank.
//!
//! All of them run as tasks, each with its own connection; what they saw is read after they stop.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinHandle;

use super::ReplayError;
use crate::page_client::{Applied, Downloads, PageClient, PageKind, ServerAddress, Troubles};

/// What one page saw.
#[derive(Debug, Clone, Default)]
pub struct FollowerRecord {
    /// Versions in order.
    pub applied: Vec<Applied>,
    /// Bytes by kind.
    pub downloads: Downloads,
    /// What went wrong.
    pub troubles: Troubles,
}

/// Pages at work.
#[derive(Debug, Default)]
pub struct Followers {
    tasks: Vec<JoinHandle<()>>,
    records: Vec<Arc<Mutex<FollowerRecord>>>,
}

impl Followers {
    /// Opens `num_pages` pages.
    ///
    /// # Errors
    /// The server's keys cannot be read.
    pub async fn start(address: &ServerAddress, num_pages: usize) -> Result<Self, ReplayError> {
        let mut followers = Self::default();
        for _ in 0..num_pages {
            let page = PageClient::connect(address, PageKind::Following).await?;
            let record = Arc::new(Mutex::new(FollowerRecord::default()));
            followers.records.push(Arc::clone(&record));
            followers.tasks.push(tokio::spawn(follow(page, record)));
        }
        Ok(followers)
    }

    /// Closes all pages and returns what they saw.
    #[must_use]
    pub fn stop(self) -> Vec<FollowerRecord> {
        for task in &self.tasks {
            task.abort();
        }
        let copy = |record: &Arc<Mutex<FollowerRecord>>| {
            record
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone()
        };
        self.records.iter().map(copy).collect()
    }
}

async fn follow(mut page: PageClient, record: Arc<Mutex<FollowerRecord>>) {
    loop {
        let applied = page.next_version().await;
        let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
        record.applied.push(applied);
        record.downloads = *page.downloads();
        record.troubles = page.troubles().clone();
    }
}
