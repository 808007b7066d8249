use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use toolgate_config::parse;

use super::listing::Listing;
use super::*;
use crate::backend::Backend;
use crate::backend::client::Caching;
use crate::gateway::Gateway;

const PUBLIC: Caching = Caching { ttl_ms: 9_000, is_public: true };
const TOOL: &str = r#"{"name":"x","inputSchema":{"type":"object"}}"#;

/// A gateway that was never started, in front of backends of these names.
fn gateway(backends: &[&str]) -> Arc<Gateway> {
    let backends: String =
        backends.iter().map(|name| format!("- {{ name: {name}, url: \"http://127.0.0.1:1/\" }}\n")).collect();
    let yaml = format!("listeners: [{{ address: '127.0.0.1:0' }}]\nbackends:\n{backends}");
    Gateway::build(Arc::new(parse(Path::new("t.yaml"), &yaml, &|_| None).unwrap())).unwrap()
}

/// Gives the backends these lists, in order, and returns what is made of them.
fn merged(gateway: &Gateway, listings: Vec<Listing>) -> Arc<Merged> {
    for (backend, listing) in gateway.snapshot().backends.iter().zip(listings) {
        backend.listing.store(Some(Arc::new(listing)));
    }
    gateway.remerge();
    gateway.snapshot().catalog()
}

fn legacy(lists: &[(Kind, &[&str])]) -> Listing {
    Listing::of(Era::Legacy, Caching::NONE, lists)
}

fn modern(lists: &[(Kind, &[&str])]) -> Listing {
    Listing::of(Era::Modern, PUBLIC, lists)
}

fn read(bytes: &Bytes) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// Lists a backend again and again in another thread, each time with another tool, which has to stand in the catalog when
/// `until_listed` returns.
fn stands_in_the_catalog_when(mut until_listed: impl FnMut(&Backend)) {
    const TIMES: usize = 300;
    let gateway = gateway(&["a"]);
    let snapshot = gateway.snapshot();
    let backend = &snapshot.backends[0];

    std::thread::scope(|scope| {
        let (go_on, next) = std::sync::mpsc::channel();
        let (gateway, snapshot) = (&gateway, &snapshot);
        scope.spawn(move || {
            for n in 0..TIMES {
                let tool = format!(r#"{{"name":"t{n}","inputSchema":{{"type":"object"}}}}"#);
                let listing = legacy(&[(Kind::Tools, &[&tool])]);
                if next.recv().is_err() {
                    return;
                }
                refresh::settle(gateway, backend, Ok(listing), &snapshot.config.catalog);
            }
        });
        for n in 0..TIMES {
            go_on.send(()).unwrap();
            until_listed(backend);
            assert!(snapshot.catalog().route(&format!("a__t{n}")).is_some(), "{n}");
        }
    });
}

#[test]
fn who_waits_for_a_listing_finds_it_merged() {
    let mut seen = 0;
    stands_in_the_catalog_when(|backend| {
        let listings = backend.listings.subscribe();
        while *listings.borrow() == seen {
            std::hint::spin_loop();
        }
        seen = *listings.borrow();
    });
}

#[test]
fn what_counts_as_listed_stands_in_the_catalog() {
    let mut seen: Option<Arc<Listing>> = None;
    stands_in_the_catalog_when(|backend| {
        seen = loop {
            let listing = backend.listing.load_full();
            let is_new = listing.as_ref().is_some_and(|new| seen.as_ref().is_none_or(|old| !Arc::ptr_eq(new, old)));
            if is_new && backend.is_listed() {
                break listing;
            }
            std::hint::spin_loop();
        };
    });
}

#[test]
fn each_era_has_its_own_words() {
    let gateway = gateway(&["a"]);

    let catalog = merged(&gateway, vec![modern(&[(Kind::Tools, &[TOOL])])]);

    let tool = r#"{"name":"a__x","inputSchema":{"type":"object"}}"#;
    assert_eq!(catalog.list(Kind::Tools, Era::Legacy), format!("{{\"tools\":[{tool}]}}").as_bytes());
    let info = concat!(r#"{"name":"toolgate","version":""#, env!("CARGO_PKG_VERSION"), r#""}"#);
    let expected = format!(
        "{{\"resultType\":\"complete\",\"tools\":[{tool}],\"ttlMs\":9000,\"cacheScope\":\"public\",\
         \"_meta\":{{\"io.modelcontextprotocol/serverInfo\":{info}}}}}"
    );
    assert_eq!(catalog.list(Kind::Tools, Era::Modern), expected.as_bytes());
    assert_eq!(catalog.list(Kind::Templates, Era::Legacy), &br#"{"resourceTemplates":[]}"#[..]);
}

#[test]
fn a_list_may_be_kept_no_longer_than_any_part_of_it() {
    let gateway = gateway(&["a", "b"]);
    let short = Caching { ttl_ms: 5, is_public: true };
    let private = Caching { ttl_ms: 7, is_public: false };
    let caching = |one, other| {
        let of = |caching| Listing::of(Era::Modern, caching, &[]);
        let catalog = merged(&gateway, vec![of(one), of(other)]);
        let (list, discover) = (read(catalog.list(Kind::Prompts, Era::Modern)), read(&catalog.discover.result));
        assert_eq!((&list["ttlMs"], &list["cacheScope"]), (&discover["ttlMs"], &discover["cacheScope"]));
        (list["ttlMs"].as_u64().unwrap(), list["cacheScope"].as_str().unwrap().to_owned())
    };

    assert_eq!(caching(PUBLIC, short), (5, "public".to_owned()));
    assert_eq!(caching(private, PUBLIC), (7, "private".to_owned()));
    assert_eq!(caching(PUBLIC, Caching::NONE), (0, "private".to_owned()));
}

#[test]
fn a_list_may_be_kept_shorter_the_older_it_is() {
    let gateway = gateway(&["a", "b"]);
    let started = Instant::now();
    let far = Caching { ttl_ms: u64::MAX, is_public: true };
    let of = |one, other| {
        let listings = [one, other].map(|caching| Listing::of(Era::Modern, caching, &[]));
        merged(&gateway, listings.into())
    };
    let left = |catalog: &Merged, after| {
        let pieces = catalog.answer(Kind::Tools, Era::Modern, started + Duration::from_millis(after)).concat();
        let discovered = catalog.discovered(started + Duration::from_millis(after)).concat();
        let ttl = |json: Vec<u8>| read(&json.into())["ttlMs"].as_u64().unwrap();
        assert_eq!(ttl(pieces.clone()), ttl(discovered));
        ttl(pieces)
    };

    let catalog = of(PUBLIC, far);
    // It was fetched a little after the start.
    assert!((9_000..10_000).contains(&left(&catalog, 0)), "{}", left(&catalog, 0));
    assert!((1_000..2_000).contains(&left(&catalog, 8_000)), "{}", left(&catalog, 8_000));
    assert_eq!(left(&catalog, 60_000), 0);
    assert!(left(&of(far, far), 60_000) > 1 << 60);
    assert_eq!(left(&of(PUBLIC, Caching::NONE), 0), 0);
}

#[test]
fn what_is_stale_or_missing_may_not_be_kept_and_is_named() {
    let gateway = gateway(&["a", "b"]);
    let missing = merged(&gateway, vec![modern(&[])]);
    gateway.snapshot().backends[0]
        .listing_failure
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .replace(crate::backend::ListingFailure { since: Instant::now(), reason: "down".to_owned() });
    let stale = merged(&gateway, vec![modern(&[]), modern(&[])]);

    for (catalog, name, state) in [(missing, "b", "missing"), (stale, "a", "stale")] {
        let list = read(catalog.list(Kind::Tools, Era::Modern));
        assert_eq!((&list["ttlMs"], &list["cacheScope"]), (&json!(0), &json!("private")));
        let incomplete = json!([{ "name": name, "state": state }]);
        assert_eq!(list["_meta"]["toolgate/incompleteBackends"], incomplete);
        let legacy = read(catalog.list(Kind::Tools, Era::Legacy));
        assert_eq!(legacy["_meta"], json!({ "toolgate/incompleteBackends": incomplete }));
    }
}

#[test]
fn prompts_are_looked_up_by_their_public_names() {
    let gateway = gateway(&["a", "b"]);
    let prompts: &[_] = &[(Kind::Prompts, &[r#"{"name":"p \"q\""}"#][..])];

    let catalog = merged(&gateway, vec![legacy(prompts), modern(prompts)]);

    let route = catalog.prompt("b__p \"q\"").unwrap();
    assert_eq!((route.backend.name().as_str(), &*route.own_json), ("b", r#""p \"q\"""#));
    assert!(catalog.prompt("p \"q\"").is_none());
}

#[test]
fn a_resource_is_whose_list_or_nearest_template_has_it() {
    let gateway = gateway(&["a", "b", "c"]);
    let resource = r#"{"uri":"f:///x/1","name":"r"}"#;
    let template = |text: &str| format!(r#"{{"uriTemplate":"{text}","name":"t"}}"#);
    let (wide, near, same) = (template("f:///{+path}"), template("f:///x/{id}"), template("f:///{+other}"));

    let catalog = merged(
        &gateway,
        vec![
            legacy(&[(Kind::Templates, &[&wide])]),
            modern(&[(Kind::Templates, &[&near, &same])]),
            legacy(&[(Kind::Resources, &[resource, r#"{"uri":"db://main/t","name":"r"}"#])]),
        ],
    );

    let owner = |uri: &str| catalog.resource(uri).map(|backend| backend.name().as_str().to_owned());
    assert_eq!(owner("f:///x/1").as_deref(), Some("c"));
    assert_eq!(owner("f:///x/2").as_deref(), Some("b"));
    assert_eq!(owner("f:///y/2").as_deref(), Some("a"));
    assert_eq!(owner("g:///y"), None);
    assert_eq!(catalog.template("f:///x/{id}").map(|backend| backend.name().as_str()), Some("b"));
    assert!(catalog.template("f:///x/2").is_none());
    let owners = |uri: &str| catalog.resource_owners(uri).iter().map(|b| b.name().as_str()).collect::<String>();
    assert_eq!((owners("db://main/u"), owners("f:z"), owners("other:1")), ("cab".into(), "abc".into(), "abc".into()));
}

#[test]
fn header_parameters_are_kept_and_bad_ones_kept_from_modern_clients() {
    let gateway = gateway(&["a", "b"]);
    let tool = |name: &str, kind: &str| {
        format!(
            r#"{{"name":"{name}","inputSchema":{{"type":"object","properties":{{"n":{{"type":"{kind}","x-mcp-header":"N"}}}}}}}}"#
        )
    };
    let (good, bad) = (tool("good", "integer"), tool("bad", "number"));
    let tools: &[_] = &[(Kind::Tools, &[&*good, &*bad][..])];

    let catalog = merged(&gateway, vec![legacy(tools), modern(tools)]);

    let names = |era| {
        let list = read(catalog.list(Kind::Tools, era));
        list["tools"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tool| tool["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(Era::Legacy), ["a__good", "a__bad", "b__good"]);
    assert_eq!(names(Era::Modern), ["a__good", "b__good"]);
    let params = &catalog.route("b__good").unwrap().header_params;
    assert_eq!((params.len(), params[0].name.as_str(), &*params[0].path[0]), (1, "mcp-param-n", "n"));
    assert!(catalog.route("a__bad").unwrap().header_params.is_empty());
    assert!(catalog.route("b__bad").is_none());
}

#[test]
fn a_change_counts_for_its_kind_alone() {
    let gateway = gateway(&["a"]);
    let prompt = r#"{"name":"p"}"#;
    let template = r#"{"uriTemplate":"a:{x}","name":"t"}"#;
    let seen = || *gateway.revision.borrow();
    assert_eq!(seen(), Revisions::FIRST);

    merged(&gateway, vec![modern(&[(Kind::Prompts, &[prompt])])]);
    assert_eq!(seen(), Revisions { prompts: 2, ..Revisions::FIRST });
    merged(&gateway, vec![modern(&[(Kind::Prompts, &[prompt]), (Kind::Templates, &[template])])]);
    assert_eq!(seen(), Revisions { prompts: 2, resources: 2, ..Revisions::FIRST });
    // Another time to live is no change of the list.
    merged(&gateway, vec![legacy(&[(Kind::Prompts, &[prompt]), (Kind::Templates, &[template])])]);
    assert_eq!(seen(), Revisions { prompts: 2, resources: 2, ..Revisions::FIRST });
    // Modern clients see what legacy ones do not.
    let with_output = r#"{"name":"x","inputSchema":{"type":"object"},"outputSchema":{"type":"array"}}"#;
    merged(&gateway, vec![modern(&[(Kind::Tools, &[TOOL])])]);
    merged(&gateway, vec![modern(&[(Kind::Tools, &[with_output])])]);
    assert_eq!(seen(), Revisions { tools: 3, prompts: 3, resources: 3 });
}

#[test]
fn the_gateway_says_what_it_is() {
    let gateway = gateway(&["a", "b"]);
    let mut one = legacy(&[]);
    (one.capabilities.subscribe, one.instructions) = (true, Some("Use \"it\".".into()));
    let mut other = modern(&[]);
    other.capabilities.completions = true;

    let catalog = merged(&gateway, vec![one, other]);

    let changing = json!({ "listChanged": true });
    let capabilities = json!({
        "tools": changing,
        "prompts": changing,
        "resources": { "listChanged": true, "subscribe": true },
        "completions": {},
    });
    assert_eq!(serde_json::from_str::<Value>(&catalog.capabilities).unwrap(), capabilities);
    let discover = read(&catalog.discover.result);
    assert_eq!(discover["capabilities"], capabilities);
    assert_eq!(discover["resultType"], "complete");
    assert_eq!(discover["supportedVersions"], json!(["2026-07-28"]));
    assert_eq!(discover["instructions"], "## a\nUse \"it\".");
    assert_eq!(discover["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "toolgate");
}
