//! Reads some keys of a JSON object in one pass and keeps at hand what was wrong with it.
//!
//! A key that is read may stand there once: a gateway that took the first `name` before a backend that takes the last
//! would let through what it refuses. Wrong shapes are faults, not errors, so that the rest is read and the id found.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Why valid JSON is no message.
pub(super) type Fault = Cow<'static, str>;

/// The keys of an object that are read.
pub(super) trait Fields<'a>: Default {
    /// The object, as a fault names it.
    const NAME: &'static str;

    /// Consumes the value of `key`.
    fn read<A: MapAccess<'a>>(&mut self, key: &str, map: &mut A) -> Result<Option<Fault>, A::Error>;
}

/// What was read, and the first fault. Without a fault it was an object.
pub(super) struct Object<T> {
    pub(super) fields: T,
    pub(super) fault: Option<Fault>,
}

/// Fills a slot that must still be empty.
pub(super) fn once<'a, T: Deserialize<'a>, A: MapAccess<'a>>(
    slot: &mut Option<T>,
    key: &str,
    map: &mut A,
) -> Result<Option<Fault>, A::Error> {
    let earlier = slot.replace(map.next_value()?);
    Ok(earlier.map(|_| duplicate(key)))
}

/// As [`once`], for a value that must be an object in turn.
pub(super) fn nested<'a, T: Fields<'a>, A: MapAccess<'a>>(
    slot: &mut Option<Box<T>>,
    key: &str,
    map: &mut A,
) -> Result<Option<Fault>, A::Error> {
    let Object { fields, fault } = map.next_value()?;
    let earlier = slot.replace(Box::new(fields));
    Ok(earlier.map(|_| duplicate(key)).or(fault))
}

/// Passes over the value of a key that is not read.
pub(super) fn skip<'a, A: MapAccess<'a>>(map: &mut A) -> Result<Option<Fault>, A::Error> {
    map.next_value::<IgnoredAny>().map(|_| None)
}

fn duplicate(key: &str) -> Fault {
    format!("duplicate `{key}`").into()
}

impl<'a, T: Fields<'a>> Deserialize<'a> for Object<T> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<T: Default> ObjectVisitor<T> {
    fn other<'a, E>(self) -> Result<Object<T>, E>
    where
        T: Fields<'a>,
    {
        Ok(Object { fields: T::default(), fault: Some(format!("{} must be an object", T::NAME).into()) })
    }
}

impl<'a, T: Fields<'a>> Visitor<'a> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any value")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut fields, mut fault) = (T::default(), None);
        while let Some(Key(key)) = map.next_key()? {
            let found = fields.read(&key, &mut map)?;
            fault = fault.or(found);
        }
        Ok(Object { fields, fault })
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        self.other()
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        self.other()
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        self.other()
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        self.other()
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        self.other()
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
        self.other()
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        self.other()
    }
}

/// A key with its escapes resolved; allocates only if there are any.
pub(super) struct Key<'a>(pub(super) Cow<'a, str>);

impl<'a> Deserialize<'a> for Key<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KeyVisitor)
    }
}

struct KeyVisitor;

impl<'a> Visitor<'a> for KeyVisitor {
    type Value = Key<'a>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_borrowed_str<E: Error>(self, key: &'a str) -> Result<Self::Value, E> {
        Ok(Key(Cow::Borrowed(key)))
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Key(Cow::Owned(key.to_owned())))
    }
}
