//! How a backend is reached: which keys go with which kind, and with which era.

use super::{command, remote};
use crate::backend::Protocol;
use crate::grammar::size;
use crate::reach::{Command, DEFAULT_MAX_INSTANCES, DEFAULT_MAX_LINE, HttpTransport, Instances, Reach, Remote};
use crate::walk::{Section, Value};

/// And the era, which not every transport can carry.
pub(super) fn reach(s: &mut Section<'_>) -> (Option<Reach>, Protocol) {
    let [url, urls, words] = s.one_of(["url", "urls", "command"]);
    let of_remote = ["tls", "headers", "transport"].map(|key| s.get(key));
    let of_command = ["env", "cwd", "instances", "max_instances", "max_line"].map(|key| s.get(key));
    let protocol_given = s.get("protocol");
    let protocols = [("auto", Protocol::Auto), ("legacy", Protocol::Legacy), ("modern", Protocol::Modern)];
    let protocol = protocol_given.as_ref().and_then(|value| value.choice(&protocols)).unwrap_or_default();
    if let Some(words) = words {
        misplaced(&of_remote, "goes with `url` or `urls`, not with `command`");
        return (command(&words, of_command).map(Reach::Command), protocol);
    }
    let placed = match (&url, &urls) {
        (Some(url), _) => remote::one(url),
        (None, Some(urls)) => remote::several(urls),
        // Reported; what else stands here is looked at all the same.
        (None, None) => return (remote(Vec::new(), &of_remote).map(Reach::Remote), protocol),
    };
    misplaced(&of_command, "goes with `command`, not with a URL");
    let remote = remote(placed, &of_remote);
    if let [.., Some(transport)] = &of_remote
        && remote.as_ref().is_some_and(|remote| remote.transport == HttpTransport::Sse)
    {
        if urls.is_some() {
            transport.problem_with("`sse` goes with `url`, not with `urls`", "name one URL, or remove it");
        }
        if let Some(given) = protocol_given.filter(|_| protocol == Protocol::Modern) {
            given.problem_with("`sse` is a transport of the legacy era", "write legacy or auto");
        }
    }
    (remote.map(Reach::Remote), protocol)
}

/// Reports keys of the other kind.
fn misplaced(values: &[Option<Value<'_>>], message: &str) {
    values.iter().flatten().for_each(|value| value.problem_with(message, "remove it"));
}

fn remote(urls: Vec<remote::Placed<'_>>, own: &[Option<Value<'_>>; 3]) -> Option<Remote> {
    let [tls, headers, transport] = own.each_ref().map(Option::as_ref);
    let tls = remote::tls_of(tls, &urls);
    let headers = headers.and_then(remote::headers).unwrap_or_default();
    let transport = transport.and_then(remote::transport).unwrap_or_default();
    let urls = urls.into_iter().map(|(_, url)| url).collect::<Option<Vec<_>>>()?;
    Some(Remote { urls, transport, tls, headers })
}

fn command(words: &Value<'_>, own: [Option<Value<'_>>; 5]) -> Option<Command> {
    let [env, cwd, instances, max_instances, max_line] = own.each_ref().map(Option::as_ref);
    let env = env.and_then(command::env).unwrap_or_default();
    let cwd = cwd.and_then(command::cwd);
    let instances = instances.and_then(command::instances).unwrap_or_default();
    if let Some(given) = max_instances.filter(|_| instances == Instances::Shared) {
        given.problem_with("goes with `instances: session`: of `shared` there is one process", "remove it");
    }
    let max_instances = max_instances.and_then(|value| value.number(1..=10_000)).unwrap_or(DEFAULT_MAX_INSTANCES);
    let max_line = max_line.and_then(size).unwrap_or(DEFAULT_MAX_LINE);
    let (program, arguments) = command::words(words)?;
    Some(Command { program, arguments, env, cwd, instances, max_instances, max_line })
}
