//! Whose token it is: by a file, or by the cluster (TokenReview).

use crate::{
    source::kubernetes::Reviewer,
    tokens::{Right, TokenFile},
};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long an answer of the cluster stands: tokens live for an hour, and are asked about each
/// minute.
const REVIEW_STANDS: Duration = Duration::from_secs(300);
/// Answers that are remembered, at most.
const REVIEWS_MAX: usize = 20_000;

/// How tokens are judged.
pub(crate) enum Judge {
    /// Everybody may have everything: for one machine.
    Nobody,
    File(TokenFile),
    Cluster(Reviewer, Reviews),
}

/// What the cluster has said lately, by the hash of the token.
#[derive(Debug, Default)]
pub(crate) struct Reviews(Mutex<HashMap<[u8; 32], Known>>);

/// An answer, and when it was given.
type Known = (Instant, Option<Right>);

impl Judge {
    /// What a token lets its bearer have; None is nothing.
    pub(crate) async fn right(&self, token: Option<&str>) -> Option<Right> {
        match self {
            Self::Nobody => Some(Right::Everything),
            Self::File(file) => file.right(token?),
            Self::Cluster(reviewer, reviews) => {
                let token = token?;
                let key = crate::shelf::digest(token.as_bytes());
                if let Some(known) = reviews.known(&key) {
                    return known;
                }
                // Where the cluster does not answer nobody gets anything, and it is asked again.
                let right = reviewer.namespace_of(token).await.ok()?.map(Right::Namespace);
                reviews.remember(key, right.clone());
                right
            }
        }
    }
}

impl Reviews {
    fn known(&self, key: &[u8; 32]) -> Option<Option<Right>> {
        let reviews = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, right) = reviews.get(key)?;
        (at.elapsed() < REVIEW_STANDS).then(|| right.clone())
    }

    fn remember(&self, key: [u8; 32], right: Option<Right>) {
        let mut reviews = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if reviews.len() >= REVIEWS_MAX {
            reviews.retain(|_, (at, _)| at.elapsed() < REVIEW_STANDS);
            if reviews.len() >= REVIEWS_MAX {
                return;
            }
        }
        reviews.insert(key, (Instant::now(), right));
    }
}
