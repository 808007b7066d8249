//! An answer that crosses eras, on its way to the client: JSON if it comes first, an event stream if something else does.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::shape::Shaped;
use super::to_legacy::ToLegacy;
use super::to_modern::ToModern;
use crate::backend::sse;
use crate::error::{Error, Kind};
use crate::jsonrpc::{self, OwnedId};
use crate::reply::{End, Next, Reply, Source};

/// How long the status waits for what the backend says first. After that it is a stream, and comments tell the client, and all
/// that stand between, that the call goes on.
const STATUS_WITHIN: Duration = Duration::from_secs(5);
/// Messages before an answer that are kept while it is not known whether it will do.
const MAX_AHEAD: usize = 64;

/// A call on a backend of the other era.
pub(super) enum Direction {
    ToLegacy(ToLegacy),
    ToModern(ToModern),
}

/// What goes to the client next.
pub(super) enum Step {
    Event(Bytes),
    /// The answer.
    Last(Shaped),
}

/// An answer under way.
pub(crate) struct Crossing {
    /// The client's id for the call.
    id: OwnedId,
    direction: Direction,
    /// What was looked at ahead.
    ready: VecDeque<Bytes>,
    outcome: Option<End>,
}

impl Direction {
    /// Waits for what happens next. Dropping the future loses nothing.
    async fn advance(&mut self, id: &OwnedId) -> Result<Step, Error> {
        match self {
            Self::ToLegacy(call) => call.advance(id).await,
            Self::ToModern(call) => call.advance().await,
        }
    }

    fn stop(&mut self) {
        match self {
            Self::ToLegacy(call) => call.stop(),
            Self::ToModern(call) => call.stop(),
        }
    }
}

impl Crossing {
    /// The reply to the client, and how it ended where that is known.
    pub(super) async fn reply(id: OwnedId, mut direction: Direction) -> Result<(Reply, Option<Kind>), Error> {
        let mut ready = VecDeque::new();
        if let Ok(step) = timeout(STATUS_WITHIN, direction.advance(&id)).await {
            match step? {
                Step::Event(event) => ready.push_back(sse::event(&event)),
                Step::Last(shaped) => {
                    let mut reply = Reply::json(vec![shaped.body]);
                    reply.status = shaped.status;
                    return Ok((reply, Some(shaped.kind)));
                }
            }
        }
        Ok((Reply::events(Source::Crossing(Box::new(Self { id, direction, ready, outcome: None }))), None))
    }

    /// Goes on until it is known whether the answer is an error, or more has come before it than is kept.
    pub(crate) async fn look_ahead(&mut self) -> bool {
        while self.outcome.is_none() && self.ready.len() < MAX_AHEAD {
            match self.take_next().await {
                Next::Chunk(chunk) => self.ready.push_back(chunk),
                Next::End(_) | Next::Broken(_) => break,
            }
        }
        self.outcome.as_ref().is_some_and(|end| !matches!(end.kind(), Kind::Ok | Kind::ToolError))
    }

    pub(crate) async fn next(&mut self) -> Next {
        match self.ready.pop_front() {
            Some(chunk) => Next::Chunk(chunk),
            None => self.take_next().await,
        }
    }

    async fn take_next(&mut self) -> Next {
        if let Some(end) = &self.outcome {
            return Next::End(end.clone());
        }
        match self.direction.advance(&self.id).await {
            Ok(Step::Event(event)) => Next::Chunk(sse::event(&event)),
            Ok(Step::Last(shaped)) => {
                self.outcome = Some(End::As(shaped.kind));
                Next::Chunk(sse::event(&shaped.body))
            }
            Err(error) => {
                let last = self.cut(&error);
                self.outcome = Some(End::Failed(error));
                Next::Chunk(last)
            }
        }
    }

    /// Ends it with an error in the answer's place.
    pub(crate) fn cut(&mut self, error: &Error) -> Bytes {
        self.direction.stop();
        if self.outcome.is_some() {
            return Bytes::new();
        }
        sse::event(&jsonrpc::error_body(Some(self.id.raw()), &error.object()))
    }

    /// How it ended, if everything that matters to its client is out already.
    pub(crate) fn outcome(&self) -> Option<End> {
        self.outcome.clone().filter(|_| self.ready.is_empty())
    }
}
