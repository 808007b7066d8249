//! The header fields of one message.

use std::borrow::Borrow;

use http::{HeaderMap, HeaderName, HeaderValue};

/// Header fields, in their order. A message has a dozen, which are looked through faster than a map of them is made.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Fields(Vec<(HeaderName, HeaderValue)>);

impl Fields {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// The first of this name.
    pub(crate) fn get(&self, name: impl Borrow<HeaderName>) -> Option<&HeaderValue> {
        self.iter().find(|(given, _)| *given == *name.borrow()).map(|(_, value)| value)
    }

    /// All of this name, in their order.
    pub(crate) fn get_all(&self, name: HeaderName) -> impl DoubleEndedIterator<Item = &HeaderValue> {
        self.iter().filter(move |(given, _)| **given == name).map(|(_, value)| value)
    }

    pub(crate) fn has(&self, name: impl Borrow<HeaderName>) -> bool {
        self.get(name).is_some()
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (&HeaderName, &HeaderValue)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// Adds one, whether or not there is one of this name.
    pub(crate) fn push(&mut self, name: HeaderName, value: HeaderValue) {
        self.0.push((name, value));
    }

    /// Takes all of this name out, and returns the first.
    pub(crate) fn remove(&mut self, name: impl Borrow<HeaderName>) -> Option<HeaderValue> {
        let removed = self.get(name.borrow()).cloned();
        self.0.retain(|(given, _)| *given != *name.borrow());
        removed
    }
}

impl FromIterator<(HeaderName, HeaderValue)> for Fields {
    fn from_iter<I: IntoIterator<Item = (HeaderName, HeaderValue)>>(fields: I) -> Self {
        Self(fields.into_iter().collect())
    }
}

impl From<HeaderMap> for Fields {
    fn from(map: HeaderMap) -> Self {
        let mut fields = Self::with_capacity(map.len());
        let mut last = None;
        for (name, value) in map {
            // Of several with one name, only the first comes with it.
            let Some(name) = name.or_else(|| last.clone()) else { continue };
            last = Some(name.clone());
            fields.push(name, value);
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use http::header::{ACCEPT, HOST};

    use super::*;

    #[test]
    fn a_map_becomes_a_list_with_all_it_holds() {
        let mut map = HeaderMap::new();
        for (name, value) in [(HOST, "a"), (ACCEPT, "b"), (HOST, "c"), (ACCEPT, "d")] {
            map.append(name, HeaderValue::from_static(value));
        }

        let mut fields = Fields::from(map);

        assert_eq!(fields.get_all(ACCEPT).collect::<Vec<_>>(), ["b", "d"]);
        assert_eq!(fields.get(HOST).unwrap(), "a");
        assert_eq!(fields.remove(HOST).unwrap(), "a");
        assert!(!fields.has(HOST) && fields.iter().count() == 2);
    }
}
