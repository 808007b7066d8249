//! Who a call is counted under.

use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr};

use dashmap::DashMap;
use foldhash::fast::RandomState;
use toolgate_config::Key;

/// What is counted for each key. Hashed faster than against whoever may choose keys at will: nobody can.
pub(super) type CellMap<V> = DashMap<CellKey, V, RandomState>;

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    /// The MCP session, when there is one.
    pub(crate) session: Option<u128>,
    /// The client's address, behind whatever proxies are trusted.
    pub(crate) ip: IpAddr,
}

/// One thing that is counted apart from others.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum CellKey {
    Everyone,
    /// All that came when `max_keys` others were counted already.
    Rest,
    Session(u128),
    V4(Ipv4Addr),
    /// The upper half of an IPv6 address. The lower one is the client's to choose.
    V6(u64),
}

impl CellKey {
    pub(super) fn new(key: Key, caller: &Caller) -> Self {
        match (key, caller.session) {
            (Key::Global, _) => Self::Everyone,
            (Key::Session, Some(session)) => Self::Session(session),
            (Key::Ip, _) | (Key::Session, None) => Self::address(caller.ip),
        }
    }

    fn address(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4),
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h, ..] = v6.octets();
                Self::V6(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
            }
        }
    }
}

/// The cell of a key: its own one when it has one or when there is room for it, else the one shared by the rest.
pub(super) fn cell_of<V>(cells: &CellMap<V>, key: CellKey, max_keys: u32) -> CellKey {
    let room = || u64::try_from(cells.len()).is_ok_and(|keys| keys < u64::from(max_keys));
    if cells.contains_key(&key) || room() { key } else { CellKey::Rest }
}
