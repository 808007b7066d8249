//! Notifications of clients: nothing is answered to them.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::bridge::question;
use crate::dispatch::Exchange;
use crate::error::Error;
use crate::reply::Reply;
use crate::session::Cancelled;

/// `notifications/initialized`: backends get theirs when their sessions are opened.
pub(super) fn ignored(_: &mut Exchange<'_>) -> Result<Reply, Error> {
    Ok(Reply::accepted())
}

/// `notifications/roots/list_changed`: every backend that the client could be asked for its roots by is told.
pub(super) fn roots_changed<'a>(exchange: &'a mut Exchange<'_>) -> BoxFuture<'a, Result<Reply, Error>> {
    async move {
        for leg in exchange.session()?.legs() {
            let body = exchange.body.clone();
            tokio::spawn(async move { leg.notify(body).await });
        }
        Ok(Reply::accepted())
    }
    .boxed()
}

/// `notifications/cancelled`: to the backend that runs the call, as it came, for the id is the client's there too. One about
/// a call that is over, or that never was, ends here.
pub(super) fn cancelled<'a>(exchange: &'a mut Exchange<'_>) -> BoxFuture<'a, Result<Reply, Error>> {
    async move {
        let session = exchange.session()?;
        let Some(id) = exchange.params.request_id() else { return Ok(Reply::accepted()) };
        let Cancelled { leg, questions } = session.cancel(&id.owned());
        if leg.is_some() || !questions.is_empty() {
            // Nobody waits: a slow backend holds up no notification. There is at most one for each call under way.
            let body = exchange.body.clone();
            tokio::spawn(async move {
                if let Some(leg) = leg {
                    leg.notify(body).await;
                }
                // In this order: a backend that goes on at a refusal does not go on with a call that was cancelled.
                question::taken_back(questions);
            });
        }
        Ok(Reply::accepted())
    }
    .boxed()
}
