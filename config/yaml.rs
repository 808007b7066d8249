//! YAML text to a tree of nodes, each with its place. Knows nothing of Toolgate, and of a broken file tells all it can.
//!
//! What cannot be configuration is refused here: tags, keys that are not scalars, a second document, and files that
//! unfold to more than they hold (aliases of aliases).

use std::collections::HashMap;
use std::rc::Rc;

use granit_parser::{ErrorKind, Event, Marker, Options, Parser, ScalarStyle};

/// Nodes a file may unfold to, aliases counted each time they are used.
const MAX_NODES: usize = 100_000;
/// Collections inside one another; the file's own shape needs eight.
const MAX_DEPTH: usize = 64;

/// A position, both from 1.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Place {
    pub(crate) line: u64,
    pub(crate) column: u64,
}

impl Place {
    /// Where a file begins, and where problems of the whole file are put.
    pub(crate) const START: Self = Self { line: 1, column: 1 };
}

impl From<Marker> for Place {
    fn from(marker: Marker) -> Self {
        Self { line: marker.line().max(1) as u64, column: marker.col() as u64 + 1 }
    }
}

/// A value and where it starts.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) at: Place,
    pub(crate) kind: Kind,
    /// Nodes in it, itself and those behind aliases included.
    size: usize,
}

#[derive(Debug)]
pub(crate) enum Kind {
    /// A scalar as written, escapes of its quotes undone. Only a plain one can be a number, a boolean or null.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Rc<Node>>),
    /// Entries in file order, duplicates included: who reads the mapping knows its name and reports them.
    Map(Vec<(Key, Rc<Node>)>),
    /// What stood here was refused, and reported.
    Broken,
}

#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) at: Place,
    pub(crate) text: String,
}

/// Why text is not a tree.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) at: Place,
    pub(crate) message: String,
    pub(crate) help: Option<&'static str>,
}

/// Reads the first document of `text`. The tree is absent when the file is empty or is not YAML.
pub(crate) fn read(text: &str) -> (Option<Rc<Node>>, Vec<Fault>) {
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.emit_unresolved_aliases = true;
    options.flow_nesting_limit = MAX_DEPTH;
    options.block_nesting_limit = MAX_DEPTH;
    let mut builder = Builder::default();
    for event in Parser::new_from_str_with_options(text, options) {
        match event {
            Ok((event, span)) => {
                let at = span.start.into();
                if builder.take(event, at, span.tag_start().map_or(at, Place::from)).is_err() {
                    break;
                }
            }
            Err(error) => {
                let too_deep = matches!(error.kind(), ErrorKind::RecursionLimitExceeded);
                let message = if too_deep {
                    format!("more than {MAX_DEPTH} levels deep")
                } else {
                    format!("not valid YAML: {}", error.kind())
                };
                builder.fault((*error.marker()).into(), message, None);
                builder.root = None;
                break;
            }
        }
    }
    (builder.root, builder.faults)
}

/// Reading cannot go on; the reason is among the faults.
struct Stop;

#[derive(Default)]
struct Builder {
    root: Option<Rc<Node>>,
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    documents: usize,
    nodes: usize,
    faults: Vec<Fault>,
}

/// A collection whose end has not come. A mapping's keys and values alternate in `items`.
struct Open {
    at: Place,
    anchor: usize,
    mapping: bool,
    items: Vec<Rc<Node>>,
}

impl Builder {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the parser may grow events; what is a value is known")]
    fn take(&mut self, event: Event<'_>, at: Place, tag_at: Place) -> Result<(), Stop> {
        if event.tag().is_some() {
            self.fault(tag_at, "YAML tags have no meaning here".to_owned(), Some("remove the tag"));
        }
        match event {
            Event::DocumentStart(..) => self.start_document(at),
            Event::Scalar(text, style, anchor, _) => {
                let plain = matches!(style, ScalarStyle::Plain);
                self.add(at, anchor, Kind::Scalar { text: text.into_owned(), plain })
            }
            Event::SequenceStart(_, anchor, _) => self.open(at, anchor, false),
            Event::MappingStart(_, anchor, _) => self.open(at, anchor, true),
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => self.alias(at, anchor),
            Event::UnresolvedAlias(_) => {
                self.fault(at, "no anchor of this name stands before this alias".to_owned(), None);
                self.add(at, 0, Kind::Broken)
            }
            _ => Ok(()),
        }
    }

    fn start_document(&mut self, at: Place) -> Result<(), Stop> {
        self.documents += 1;
        if self.documents == 1 {
            return Ok(());
        }
        self.fault(at, "a second YAML document starts here".to_owned(), Some("keep one document in the file"));
        Err(Stop)
    }

    fn open(&mut self, at: Place, anchor: usize, mapping: bool) -> Result<(), Stop> {
        self.count(at, 1)?;
        self.open.push(Open { at, anchor, mapping, items: Vec::new() });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Stop> {
        let Some(Open { at, anchor, mapping, items }) = self.open.pop() else { return Ok(()) };
        let size = 1 + items.iter().map(|node| node.size).sum::<usize>();
        let kind = if mapping { Kind::Map(self.pair(items)) } else { Kind::List(items) };
        self.place(anchor, Rc::new(Node { at, kind, size }));
        Ok(())
    }

    /// Keys and values, which alternate, as entries.
    fn pair(&mut self, items: Vec<Rc<Node>>) -> Vec<(Key, Rc<Node>)> {
        let mut entries = Vec::with_capacity(items.len() / 2);
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            match &key.kind {
                Kind::Scalar { text, .. } => entries.push((Key { at: key.at, text: text.clone() }, value)),
                Kind::List(_) | Kind::Map(_) => {
                    self.fault(key.at, "a key must be a string".to_owned(), None);
                }
                Kind::Broken => {}
            }
        }
        entries
    }

    fn alias(&mut self, at: Place, anchor: usize) -> Result<(), Stop> {
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            self.fault(at, "an alias inside the value it stands for".to_owned(), None);
            return self.add(at, 0, Kind::Broken);
        };
        self.count(at, node.size)?;
        self.place(0, node);
        Ok(())
    }

    fn add(&mut self, at: Place, anchor: usize, kind: Kind) -> Result<(), Stop> {
        self.count(at, 1)?;
        self.place(anchor, Rc::new(Node { at, kind, size: 1 }));
        Ok(())
    }

    fn place(&mut self, anchor: usize, node: Rc<Node>) {
        // The parser numbers anchors from 1; 0 is none.
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        match self.open.last_mut() {
            Some(parent) => parent.items.push(node),
            None => self.root = Some(node),
        }
    }

    fn count(&mut self, at: Place, nodes: usize) -> Result<(), Stop> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes <= MAX_NODES {
            return Ok(());
        }
        self.fault(at, format!("unfolds to more than {MAX_NODES} values"), None);
        // The tree so far misses whatever was not read, so nothing may be concluded from it.
        self.root = None;
        Err(Stop)
    }

    fn fault(&mut self, at: Place, message: String, help: Option<&'static str>) {
        self.faults.push(Fault { at, message, help });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        let (_, faults) = read(text);
        faults.into_iter().map(|f| format!("{}:{}: {}", f.at.line, f.at.column, f.message)).collect()
    }

    #[test]
    fn places_are_counted_from_one() {
        let (root, _) = read("a:\n  - x\n  - 'y'\n");
        let root = root.unwrap();
        let Kind::Map(entries) = &root.kind else { panic!("not a mapping") };
        let Kind::List(items) = &entries[0].1.kind else { panic!("not a list") };

        assert_eq!((entries[0].0.at, entries[0].0.text.as_str()), (Place::START, "a"));
        assert_eq!(items[1].at, Place { line: 3, column: 5 });
        assert!(matches!(&items[1].kind, Kind::Scalar { text, plain: false } if text == "y"));
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_walked() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..10 {
            let row = vec![format!("*a{}", i - 1); 10].join(", ");
            text += &format!("a{i}: &a{i} [{row}]\n");
        }

        let (root, _) = read(&text);

        assert!(root.is_none());
        assert_eq!(faults(&text), ["5:45: unfolds to more than 100000 values"]);
    }

    #[test]
    fn depth_is_bounded() {
        let flow = "[".repeat(100_000);
        let block = (0..70).map(|i| " ".repeat(i) + "a:\n").collect::<String>();

        assert_eq!(faults(&flow), ["1:65: more than 64 levels deep"]);
        assert_eq!(faults(&block), ["65:65: more than 64 levels deep"]);
    }

    #[test]
    fn an_alias_inside_its_own_anchor_is_refused() {
        assert_eq!(faults("a: &a [*a]"), ["1:8: an alias inside the value it stands for"]);
    }

    #[test]
    fn what_cannot_be_configuration_is_refused_all_at_once() {
        let text = "a: !!binary x\n? [b]\n: c\nd: *nowhere\n---\ne: f\n";

        let faults = faults(text);

        assert_eq!(
            faults,
            [
                "1:4: YAML tags have no meaning here",
                "4:4: no anchor of this name stands before this alias",
                "2:3: a key must be a string",
                "5:1: a second YAML document starts here",
            ]
        );
    }
}
