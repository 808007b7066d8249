//! Sessions of legacy clients, and the backend sessions held for each.
//!
//! A session id is a sealed token that says everything a session is: any process with the same keys serves it, and what
//! this process holds for it can be released and made anew. Backend sessions are opened when first needed, and again when
//! a backend has forgotten them.

mod capabilities;
mod held;
mod leg;
mod pool;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use toolgate_config::Sessions as Settings;

pub(crate) use self::capabilities::ClientCapabilities;
pub(crate) use self::held::{
    Asker, CallGuard, Cancelled, MAX_QUESTIONS, MAX_STREAMS, MAX_SUBSCRIPTIONS, Session, StreamGuard,
};
pub(crate) use self::leg::Leg;
use self::pool::Pool;
pub(crate) use self::pool::{Borrowed, PoolKey};
use crate::backend::Backend;
use crate::bridge::question;
use crate::era::Version;
use crate::error::Error;
use crate::gateway::Gateway;
use crate::jsonrpc::Params;
use crate::seal::{MAX_PLAIN, Sealer, Secret};

/// What a token is for; keeps it apart from anything else sealed with the same keys.
const PURPOSE: &[u8] = b"toolgate session v1";
/// The longest `clientInfo` name, title or version that is kept and told to backends.
const MAX_CLIENT_FIELD: usize = 128;
/// Sessions ended by DELETE that are remembered until they would have expired.
const MAX_ENDED: usize = 100_000;
/// Entries of a full table looked at to find one that goes before others: a look at all of them would cost too much.
const EVICTION_SAMPLE: usize = 64;
/// When a session of the gateway's own expires.
const NEVER: u64 = u64::MAX;
/// Whom a session belongs to while nobody is asked who they are.
pub(crate) const ANYONE: &str = "";

/// What a token says.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Token {
    /// Random, in hex.
    i: String,
    /// Protocol version.
    v: String,
    /// Whom it belongs to.
    p: String,
    /// When it expires, in seconds since 1970.
    e: u64,
    /// `clientInfo`.
    c: ClientInfo,
    /// What the client can be asked.
    #[serde(default)]
    a: u16,
}

/// What backends are told of a client. Icons and the like are left behind: a token has to fit into a header.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct ClientInfo {
    name: String,
    version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    title: Option<String>,
}

impl ClientInfo {
    fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| "{\"name\":\"\",\"version\":\"\"}".to_owned())
    }

    fn read(raw: Option<&RawValue>) -> Result<Self, Error> {
        let what = "`clientInfo` must be an object with `name` and `version`";
        let raw = raw.ok_or_else(|| Error::InvalidParams { what: what.into() })?;
        let mut info: Self = serde_json::from_str(raw.get()).map_err(|_| Error::InvalidParams { what: what.into() })?;
        for field in [Some(&mut info.name), Some(&mut info.version), info.title.as_mut()].into_iter().flatten() {
            field.truncate(field.floor_char_boundary(MAX_CLIENT_FIELD));
        }
        Ok(info)
    }
}

/// What all sessions hold together.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Questions that clients have yet to answer.
    pub(crate) questions: AtomicUsize,
    /// Resources that sessions are subscribed to.
    pub(crate) subscriptions: AtomicUsize,
}

/// All sessions of this process.
pub(crate) struct Sessions {
    sealer: ArcSwap<Sealer>,
    settings: ArcSwap<Settings>,
    /// Seals where no key is configured.
    own: Secret,
    /// Counts the sets of keys: what was opened with another than the one of now is opened once more.
    keys: AtomicU64,
    /// By the marks of their tokens, which cost less to look at than what is sealed in them.
    live: DashMap<u128, Arc<Session>, foldhash::fast::RandomState>,
    /// The secret of the marks: nobody can make a token that has the mark of another.
    marks: RandomState,
    /// Sessions for modern clients.
    pool: Arc<Pool>,
    /// Ended by DELETE: id and expiry.
    ended: DashMap<u128, u64>,
    pub(crate) counts: Arc<Counts>,
    random: SystemRandom,
}

impl Sessions {
    /// `own` is what seals where no key is configured.
    pub(crate) fn new(settings: &Settings, own: Secret) -> Self {
        Self {
            sealer: ArcSwap::from_pointee(Sealer::new(&settings.keys, &own)),
            settings: ArcSwap::from_pointee(settings.clone()),
            own,
            keys: AtomicU64::new(0),
            live: DashMap::default(),
            marks: RandomState::new(),
            pool: Arc::default(),
            ended: DashMap::new(),
            counts: Arc::default(),
            random: SystemRandom::new(),
        }
    }

    /// Takes up new settings. Tokens live on if their key is still there, which the process's own always is.
    pub(crate) fn reconfigure(&self, settings: &Settings) {
        if self.settings.load().keys != settings.keys {
            self.sealer.store(Arc::new(Sealer::new(&settings.keys, &self.own)));
            self.keys.fetch_add(1, Ordering::SeqCst);
        }
        self.settings.store(Arc::new(settings.clone()));
    }

    /// For a process that takes over.
    pub(crate) fn own_secret(&self) -> Secret {
        self.own
    }

    /// Seals what a client is to hold, with the keys of the tokens.
    pub(crate) fn seal(&self, purpose: &'static [u8], plain: &[u8]) -> String {
        self.sealer.load().seal(purpose, plain)
    }

    /// What a client has held, if it is untouched.
    pub(crate) fn open(&self, purpose: &'static [u8], sealed: &str) -> Option<Vec<u8>> {
        self.sealer.load().open(purpose, sealed)
    }

    /// Sessions that something is held for.
    pub(crate) fn held(&self) -> usize {
        self.live.len()
    }

    /// Starts a session: a token, and nothing held yet.
    ///
    /// # Errors
    /// When `clientInfo` is not one, or what the session needs could not be held now.
    pub(crate) fn start(&self, version: Version, params: &Params<'_>, principal: &str) -> Result<String, Error> {
        let token = Token {
            i: format!("{:032x}", self.random_id()),
            v: version.as_str().to_owned(),
            p: principal.to_owned(),
            e: unix_now() + self.settings.load().lifetime.as_secs(),
            c: ClientInfo::read(params.client_info)?,
            a: ClientCapabilities::read(params.capabilities).bits(),
        };
        let plain = serde_json::to_vec(&token)
            .map_err(|_| Error::InvalidParams { what: "`clientInfo` cannot be kept".into() })?;
        if plain.len() > MAX_PLAIN {
            return Err(Error::InvalidParams { what: "`clientInfo` is too long".into() });
        }
        if let Some(max) = self.full()
            && self.live.iter().all(|session| session.is_busy())
        {
            return Err(Error::SessionsFull { max });
        }
        Ok(self.sealer.load().seal(PURPOSE, &plain))
    }

    /// How many sessions may be held, where so many are.
    fn full(&self) -> Option<u32> {
        let max = self.settings.load().max;
        (self.live.len() >= max as usize).then_some(max)
    }

    /// The session that a token names.
    ///
    /// # Errors
    /// When it is not one of ours, has expired, was ended or belongs to somebody else: all told alike.
    pub(crate) fn find(&self, token: &str, principal: &str) -> Result<Arc<Session>, Error> {
        let mark = self.mark(token, principal);
        let keys = self.keys.load(Ordering::SeqCst);
        let live = self.live.get(&mark).map(|live| Arc::clone(&live));
        if let Some(live) = live.filter(|live| live.keys.load(Ordering::Relaxed) == keys) {
            return if live.use_now() { Ok(live) } else { Err(Error::SessionUnknown) };
        }
        let plain = self.sealer.load().open(PURPOSE, token).ok_or(Error::SessionUnknown)?;
        let token: Token = serde_json::from_slice(&plain).map_err(|_| Error::SessionUnknown)?;
        let id = u128::from_str_radix(&token.i, 16).map_err(|_| Error::SessionUnknown)?;
        let version = Version::read(&token.v).ok_or(Error::SessionUnknown)?;
        if token.p != principal || token.e <= unix_now() || self.ended.contains_key(&id) {
            return Err(Error::SessionUnknown);
        }
        if let Some(max) = self.full()
            && !self.live.contains_key(&mark)
            && !self.make_room()
        {
            return Err(Error::SessionsFull { max });
        }
        let capabilities = ClientCapabilities::from_bits(token.a);
        let make = || {
            let session = Session::new(id, version, token.e, &token.c.json(), capabilities, self);
            Arc::new(session.marked(mark))
        };
        let session = Arc::clone(&self.live.entry(mark).or_insert_with(make));
        // It may have been ended since that was looked at, and what is held is found without another look.
        if self.ended.contains_key(&id) {
            self.live.remove(&mark);
            return Err(Error::SessionUnknown);
        }
        session.keys.store(keys, Ordering::Relaxed);
        session.touch();
        Ok(session)
    }

    /// What a token is known by, so that it need not be opened for each request.
    fn mark(&self, token: &str, principal: &str) -> u128 {
        // The end of a token is random, and part of what tells whether the rest of it is untouched.
        let end = token.as_bytes().last_chunk().map_or(0, |end| u64::from_ne_bytes(*end));
        u128::from(self.marks.hash_one((token, principal))) << 64 | u128::from(end)
    }

    /// A session in which a backend that wants one is asked for a modern client: shared with all that could not be told apart
    /// by what the backend is told, or, where the backend may ask the client, one call's alone.
    pub(crate) fn borrow(gateway: &Arc<Gateway>, backend: &Backend, key: PoolKey) -> Borrowed {
        let taken = gateway.sessions.pool.take(&key, backend);
        let (session, stray) = taken.unwrap_or_else(|| {
            let session = gateway.sessions.private(key.capabilities, key.replica);
            if let Some(level) = &key.level {
                session.set_level(level);
            }
            if key.is_shared() {
                gateway.sessions.give_back(&key, &session);
            }
            (session, None)
        });
        if let Some(stray) = stray {
            tokio::spawn(async move { stray.close().await });
        }
        session.touch();
        Borrowed { key, session, gateway: Arc::downgrade(gateway) }
    }

    /// Keeps a session for the next modern client, if there is room.
    fn give_back(&self, key: &PoolKey, session: &Arc<Session>) {
        if self.pool.keep(key, session) {
            return;
        }
        let legs = session.take_legs(|_| true);
        if !legs.is_empty() && tokio::runtime::Handle::try_current().is_ok() {
            tokio::spawn(crate::gateway::close(legs));
        }
    }

    /// A session of the gateway's own, on behalf of nobody who could come back to it.
    pub(crate) fn private(&self, capabilities: ClientCapabilities, replica: Option<usize>) -> Arc<Session> {
        let info =
            ClientInfo { name: "toolgate".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned(), title: None };
        let session = Session::new(self.random_id(), Version::LATEST, NEVER, &info.json(), capabilities, self);
        Arc::new(session.at(replica))
    }

    fn random_id(&self) -> u128 {
        let mut id = [0; 16];
        // Without randomness there would be no TLS either; a clash of ids is then the smaller problem.
        let _ = self.random.fill(&mut id);
        u128::from_be_bytes(id)
    }

    /// Releases what is held for the longest unused of some sessions: its client opens it anew when it comes back.
    fn make_room(&self) -> bool {
        let some = self.live.iter().filter(|session| !session.is_busy()).take(EVICTION_SAMPLE);
        let now = Instant::now();
        let Some(mark) = some.max_by_key(|session| session.idle_since(now)).map(|session| session.mark) else {
            return false;
        };
        if let Some((_, session)) = self.live.remove(&mark) {
            tokio::spawn(crate::gateway::close(session.take_legs(|_| true)));
        }
        true
    }

    /// Ends a session: its id is unknown from now on. Returns what was held for it, to be closed.
    pub(crate) fn end(&self, session: &Session) -> Vec<Arc<Leg>> {
        if self.ended.len() >= MAX_ENDED {
            // Forgetting one revives at most a session whose owner ended it, for its owner.
            let oldest =
                self.ended.iter().take(EVICTION_SAMPLE).min_by_key(|entry| *entry.value()).map(|entry| *entry.key());
            oldest.map(|id| self.ended.remove(&id));
        }
        self.ended.insert(session.id, session.expires);
        self.live.remove(&session.mark);
        session.finish();
        session.take_legs(|_| true)
    }

    /// Releases what is held for sessions that were not used for a while or have expired, for backends that are gone, and for
    /// calls that no client came back for. Returns what of it is to be closed.
    pub(crate) fn sweep(&self, now: Instant) -> Vec<Arc<Leg>> {
        let idle = self.settings.load().idle;
        let clock = unix_now();
        self.ended.retain(|_, expires| *expires > clock);
        let (mut legs, mut unanswered) = (Vec::new(), Vec::new());
        let mut stays = |session: &Session| {
            unanswered.extend(session.lapse(now));
            let over = session.expires <= clock || session.idle_since(now) >= idle;
            if over && !session.is_busy() {
                legs.extend(session.take_legs(|_| true));
                return false;
            }
            legs.extend(session.take_retired_legs());
            true
        };
        self.live.retain(|_, session| stays(session));
        self.pool.retain(stays);
        question::taken_back(unanswered);
        legs
    }

    /// Everything held, to be closed at the end.
    pub(crate) fn drain(&self) -> Vec<Arc<Leg>> {
        let mut legs = Vec::new();
        let mut goes = |session: &Session| {
            legs.extend(session.take_legs(|_| true));
            false
        };
        self.live.retain(|_, session| goes(session));
        self.pool.retain(goes);
        legs
    }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jsonrpc::{self, Message};

    const HELLO: &[u8] =
        br#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"clientInfo":{"name":"c","version":"1","icons":[]}}}"#;

    fn sessions(extra: &str) -> Sessions {
        let yaml = format!(
            "listeners: [{{ address: '127.0.0.1:0' }}]\nbackends: [{{ name: a, url: 'http://127.0.0.1:1/' }}]\n\
             sessions: {{ {extra} }}\n"
        );
        let config = toolgate_config::parse(std::path::Path::new("t.yaml"), &yaml, &|_| None);
        Sessions::new(&config.unwrap_or_else(|report| panic!("{report}")).sessions, crate::seal::secret())
    }

    fn start(sessions: &Sessions, body: &[u8], principal: &str) -> Result<String, Error> {
        let Ok(Message::Request(request)) = jsonrpc::parse(body) else { panic!("not a request") };
        sessions.start(Version::LATEST, &request.params, principal)
    }

    #[test]
    fn a_token_is_good_for_its_principal_only() {
        let sessions = sessions("lifetime: 1h");

        let token = start(&sessions, HELLO, "alice").unwrap();

        assert!(sessions.find(&token, "alice").is_ok());
        assert!(matches!(sessions.find(&token, "bob"), Err(Error::SessionUnknown)));
    }

    #[test]
    fn a_session_is_one_whenever_it_is_found_until_it_is_ended() {
        let sessions = sessions("lifetime: 1h");
        let token = start(&sessions, HELLO, ANYONE).unwrap();

        let found = sessions.find(&token, ANYONE).unwrap();
        let again = sessions.find(&token, ANYONE).unwrap();
        sessions.end(&found);

        assert!(Arc::ptr_eq(&found, &again));
        assert!(matches!(sessions.find(&token, ANYONE), Err(Error::SessionUnknown)));
        assert_eq!(sessions.held(), 0);
    }

    #[test]
    fn a_session_that_is_held_ends_with_the_key_of_its_token() {
        let keys = |keys: &[char]| {
            let keys: Vec<_> = keys.iter().map(|key| key.to_string().repeat(64)).collect();
            sessions(&format!("keys: [{}]", keys.join(", ")))
        };
        let settings = |of: &Sessions| of.settings.load_full();
        let sessions = keys(&['a']);
        let token = start(&sessions, HELLO, ANYONE).unwrap();
        let found = sessions.find(&token, ANYONE).unwrap();

        sessions.reconfigure(&settings(&keys(&['b', 'a'])));
        let again = sessions.find(&token, ANYONE).unwrap();
        sessions.reconfigure(&settings(&keys(&['b'])));

        assert!(Arc::ptr_eq(&found, &again));
        assert!(matches!(sessions.find(&token, ANYONE), Err(Error::SessionUnknown)));
    }

    #[test]
    fn a_client_of_any_size_gets_a_token_that_fits_into_a_header() {
        let sessions = sessions("lifetime: 1h");
        let long = "\u{1F600}".repeat(100_000);
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"clientInfo":{{"name":"{long}","version":"{long}","title":"{long}"}}}}}}"#
        );

        let token = start(&sessions, body.as_bytes(), ANYONE).unwrap();

        assert!(token.len() <= crate::seal::MAX_TOKEN, "{}", token.len());
        assert!(sessions.find(&token, ANYONE).is_ok());
    }

    #[test]
    fn what_is_no_client_gets_no_session() {
        let sessions = sessions("lifetime: 1h");
        for info in ["", r#","params":{}"#, r#","params":{"clientInfo":"c"}"#, r#","params":{"clientInfo":{"name":1}}"#]
        {
            let body = format!(r#"{{"jsonrpc":"2.0","id":0,"method":"initialize"{info}}}"#);
            assert!(matches!(start(&sessions, body.as_bytes(), ANYONE), Err(Error::InvalidParams { .. })), "{info}");
        }
    }
}
