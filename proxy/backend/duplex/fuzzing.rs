//! What must hold of any messages on a shared pipe: ids and tokens are put in the place of others and put back, and every
//! other byte stays as it came. See [`crate::fuzzing`].

use std::ops::Range;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::answer::framed;
use super::queue::queue;
use super::rewrite::one_line;
use super::table::{Route, SessionId, Sharing, Table};
use super::waiting::Inbox;
use crate::backend::sse::Events;
use crate::jsonrpc::{self, Message, Notification, Request, Response, member, span, splice};

const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";
/// A message is not copied that is longer than this.
const LONG: usize = 16 * 1024;

/// A request of a client, and what the backend says then.
pub(crate) fn duplex(asked: &[u8], said: &[u8]) {
    for sharing in [Sharing::Modern, Sharing::Session, Sharing::Shared] {
        exchange(asked, said, sharing);
    }
    let padding = " ".repeat(LONG);
    exchange(&[asked, padding.as_bytes()].concat(), &[said, padding.as_bytes()].concat(), Sharing::Shared);
}

fn exchange(asked: &[u8], said: &[u8], sharing: Sharing) {
    let body = Bytes::copy_from_slice(asked);
    let Ok(Message::Request(request)) = jsonrpc::parse(&body) else { return };
    let (mut table, session) = (Table::new(sharing), SessionId::from("s"));
    let (events, _queued) = queue();
    let (answer, _answered) = oneshot::channel();
    let asked = table.ask(&session, &body, &request, Inbox { events, answer });
    assert!(asked.is_some(), "a table is open");
    let Some((number, message)) = asked else { return };
    asks(&body, &request, &message.whole(), number);
    let backend = Backend { request: &request, number, sharing };
    backend.says(&mut table, &Bytes::copy_from_slice(said));
}

/// What goes to the backend, with the client's own id and token put back, is what the client said.
fn asks(body: &Bytes, request: &Request<'_>, message: &Bytes, number: u64) {
    assert!(!message.contains(&b'\n') && !message.contains(&b'\r'));
    let parsed = jsonrpc::parse(message);
    assert!(matches!(parsed, Ok(Message::Request(_))), "{parsed:?}");
    let Ok(Message::Request(to_backend)) = &parsed else { return };
    let own = token(request);
    let replaced = [Some((to_backend.id.raw(), request.id.raw())), token(to_backend).zip(own)];
    let mut edits: Vec<(Range<usize>, &[u8])> = Vec::new();
    for (ours, own) in replaced.into_iter().flatten() {
        assert_eq!(ours, number.to_string());
        edits.extend(span(message, ours).map(|span| (span, own.as_bytes())));
    }
    edits.sort_by_key(|(span, _)| span.start);
    assert_eq!(edits.len(), 1 + usize::from(own.is_some()));
    assert_eq!(one_line(&splice(message, &edits)), one_line(body));
}

fn token<'a>(request: &Request<'a>) -> Option<&'a str> {
    request.params.meta.as_ref()?.progress_token.map(RawValue::get)
}

/// A backend that was asked.
struct Backend<'a> {
    request: &'a Request<'a>,
    /// Its name for the request.
    number: u64,
    sharing: Sharing,
}

impl Backend<'_> {
    /// Says a message, as it is and as one that belongs to the request.
    fn says(&self, table: &mut Table, line: &Bytes) {
        match jsonrpc::parse(line) {
            Ok(Message::Request(request)) => self.asks_back(table, line, &request),
            Ok(Message::Notification(notification)) => self.notifies(table, line, &notification),
            Ok(Message::Response(response)) => self.answers(table, line, &response),
            Err(_) => assert!(matches!(table.route(line), Route::NoMessage)),
        }
    }

    /// A message with other names in it.
    fn with(line: &Bytes, parts: &[&str], name: &str) -> Bytes {
        let mut edits: Vec<(Range<usize>, &[u8])> =
            parts.iter().filter_map(|part| Some((span(line, part)?, name.as_bytes()))).collect();
        edits.sort_by_key(|(span, _)| span.start);
        splice(line, &edits)
    }

    fn answers(&self, table: &mut Table, line: &Bytes, response: &Response<'_>) {
        let Some(id) = response.id else { return assert!(matches!(table.route(line), Route::Nowhere(_))) };
        let listens = self.request.method == "subscriptions/listen";
        // One that stands there twice is nobody's.
        let subscription = only(response.value.get(), "_meta").and_then(|meta| only(meta, SUBSCRIPTION));
        let subscription = subscription.filter(|id| listens && *id != "null");
        let parts: Vec<&str> = [Some(id.raw()), subscription].into_iter().flatten().collect();
        let number = self.number.to_string();
        let Route::Answer(_, answered) = table.route(&Self::with(line, &parts, &number)) else {
            return assert_eq!(number, "", "it was asked");
        };
        assert_eq!(answered.message.whole(), Self::with(line, &parts, self.request.id.raw()));
        assert!(matches!(table.route(&Self::with(line, &parts, &number)), Route::Nowhere(_)), "once");
    }

    fn notifies(&self, table: &mut Table, line: &Bytes, notification: &Notification<'_>) {
        let number = self.number.to_string();
        let subscription = notification.params.meta.as_ref().and_then(|meta| meta.subscription_id).map(RawValue::get);
        let (part, own) = match (&*notification.method, subscription) {
            ("notifications/progress", _) => {
                (notification.params.progress_token.map(RawValue::get), token(self.request))
            }
            (_, Some(id)) => (Some(id), Some(self.request.id.raw())),
            (_, None) => return assert!(passes(table.route(line)).is_none_or(|passed| passed == *line)),
        };
        let (Some(part), Some(own)) = (part, own) else { return assert!(passes(table.route(line)).is_none()) };
        assert_eq!(passes(table.route(&Self::with(line, &[part], &number))), Some(Self::with(line, &[part], own)));
    }

    /// A question reaches the client as it is, or is answered here; and so does the client's answer.
    fn asks_back(&self, table: &mut Table, line: &Bytes, request: &Request<'_>) {
        match table.route(line) {
            Route::Back(body) => {
                let parsed = jsonrpc::parse(&body);
                assert!(matches!(parsed, Ok(Message::Response(response)) if response.id == Some(request.id)));
            }
            route @ (Route::Answer(..) | Route::NoMessage | Route::Nowhere(_) | Route::Streams(..)) => {
                assert_ne!(self.sharing, Sharing::Modern, "nobody asks a modern client");
                assert_eq!(passes(route).as_ref(), Some(line));
                let answer = jsonrpc::result_body(request.id.raw(), "{\n}");
                let parsed = jsonrpc::parse(&answer);
                let told = parsed.ok().map(|message| {
                    let mut tell = |session: &str| table.tell(&session.into(), &answer, &message);
                    [tell("other"), tell("s"), tell("s")].map(|told| told.map(super::Pieces::whole))
                });
                assert_eq!(told, Some([None, Some(one_line(&answer)), None]), "the one who was asked, once");
            }
        }
    }
}

/// The value of a key that stands in an object once.
fn only<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    let is_once = jsonrpc::members(json)?.iter().filter(|(name, _)| name == key).count() == 1;
    member(json, key).filter(|_| is_once)
}

/// What the client gets, which its reader can read.
fn passes(route: Route) -> Option<Bytes> {
    match route {
        Route::Streams(_, message) => {
            let mut events = Events::new(usize::MAX);
            assert_eq!(events.push(&framed(message.clone()).concat()), Ok(()));
            let whole = message.whole();
            let data = String::from_utf8_lossy(&whole).replace("\r\n", "\n").replace('\r', "\n");
            assert_eq!(events.next().map(|event| event.data), Some(data));
            Some(whole)
        }
        Route::Answer(..) | Route::Back(_) | Route::NoMessage | Route::Nowhere(_) => None,
    }
}
