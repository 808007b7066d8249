//! `subscriptions/listen`.

use crate::dispatch::Exchange;
use crate::error::Error;
use crate::news::{Filter, Listen};
use crate::reply::{Reply, Source};

/// A stream of what the client asked for, until it leaves or the gateway goes down.
pub(super) fn listen(exchange: &mut Exchange<'_>) -> Result<Reply, Error> {
    let filter = Filter::read(exchange)?;
    Ok(Reply::events(Source::Listen(Box::new(Listen::new(exchange, filter)?))))
}
