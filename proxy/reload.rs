//! A new configuration while running: read, compare, build whole, swap, retire the old. Any failure keeps the old world.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use toolgate_config::{Change, Config, compare};

use crate::difference::{self, Difference};
use crate::gateway::{Gateway, Phase};
use crate::snapshot::Snapshot;
use crate::tls::{Certificates, Resolver};

/// Events within this time of each other are one change: editors and mounts make several.
const DEBOUNCE: Duration = Duration::from_millis(250);

/// What became of a reload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It runs.
    Applied {
        /// Counts the configurations that ran, from 1.
        generation: u64,
    },
    /// The old one goes on.
    Rejected {
        /// Why, one problem each.
        problems: Vec<String>,
    },
    /// It is the one that runs.
    Unchanged,
}

/// A reload that was applied.
#[derive(Debug)]
pub(crate) struct Reloaded {
    pub(crate) when: SystemTime,
    pub(crate) generation: u64,
    /// What is different, one key each; secrets are not told apart.
    pub(crate) changes: Vec<String>,
}

/// Changes of one reload that are told one by one.
const TOLD: usize = 64;

/// What is different between two configurations as the operator sees them, one key each.
fn changes(old: &Value, new: &Value) -> Vec<String> {
    let told = |Difference { key, old, new }| match (old, new) {
        (Some(old), Some(new)) => format!("{key}: {old} became {new}"),
        (Some(old), None) => format!("{key}: {old} is gone"),
        (None, new) => format!("{key}: {} is new", new.unwrap_or_default()),
    };
    let mut told: Vec<_> = difference::between(old, new).into_iter().map(told).collect();
    let more = told.len().saturating_sub(TOLD);
    told.truncate(TOLD);
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    if told.is_empty() {
        told.push("a secret, a certificate or another file that it names".to_owned());
    }
    told
}

/// Whether somebody waits to hear how a reload went. That a look at the files found nothing new is worth no count.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Asked {
    No,
    Yes,
}

/// Takes up new configurations, one at a time.
pub(crate) struct Reloader {
    gateway: Weak<Gateway>,
    /// Of each listener, where it has TLS.
    resolvers: Vec<Option<Arc<Resolver>>>,
    path: OnceLock<PathBuf>,
    one_at_a_time: tokio::sync::Mutex<()>,
    /// The problems logged last, so that a file that stays bad is not logged at every look.
    told: Mutex<Vec<String>>,
}

impl Reloader {
    pub(crate) fn new(gateway: &Arc<Gateway>, resolvers: Vec<Option<Arc<Resolver>>>) -> Self {
        Self {
            gateway: Arc::downgrade(gateway),
            resolvers,
            path: OnceLock::new(),
            one_at_a_time: tokio::sync::Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// Watches a file and those that it names, from now on.
    pub(crate) fn follow(self: &Arc<Self>, path: PathBuf) {
        if self.path.set(path).is_ok() {
            tokio::spawn(watch(Arc::clone(self)));
        }
    }

    /// Reads the file again. `None` when there is no file: the gateway was built from a configuration.
    pub(crate) async fn reload(&self) -> Option<Outcome> {
        self.look(Asked::Yes).await
    }

    async fn look(&self, asked: Asked) -> Option<Outcome> {
        let path = self.path.get()?.clone();
        let loaded = tokio::task::spawn_blocking(move || toolgate_config::load(&path)).await;
        Some(match loaded {
            Ok(Ok(config)) => self.take_if(config, asked).await,
            Ok(Err(report)) => self.noted(rejected(report.diagnostics().iter().map(ToString::to_string)), asked),
            Err(_) => self.noted(rejected(["reading the configuration failed".to_owned()]), asked),
        })
    }

    /// Takes a configuration up.
    pub(crate) async fn take(&self, config: Config) -> Outcome {
        self.take_if(config, Asked::Yes).await
    }

    async fn take_if(&self, config: Config, asked: Asked) -> Outcome {
        let _one = self.one_at_a_time.lock().await;
        let Some(gateway) = self.gateway.upgrade() else {
            return rejected(["the gateway has stopped".to_owned()]);
        };
        let outcome = match compare(&gateway.snapshot().config, &config) {
            Change::None => Outcome::Unchanged,
            Change::Reload => self.apply(&gateway, config),
            Change::Restart { fields } => rejected(
                fields.iter().map(|field| format!("{field}: cannot change while running; restart to take it up")),
            ),
        };
        self.noted(outcome, asked)
    }

    /// Builds everything that can fail, then swaps.
    fn apply(&self, gateway: &Arc<Gateway>, config: Config) -> Outcome {
        let config = Arc::new(config);
        let mut certificates = Vec::new();
        for (index, (listener, resolver)) in config.listeners.iter().zip(&self.resolvers).enumerate() {
            if let (Some(tls), Some(resolver)) = (&listener.tls, resolver) {
                match Certificates::new(tls) {
                    Ok(new) => certificates.push((Arc::clone(resolver), new)),
                    Err(problem) => return rejected([format!("listeners[{index}].tls: {problem}")]),
                }
            }
        }
        let (previous, metrics) = (gateway.snapshot(), &gateway.metrics);
        match Snapshot::build(Arc::clone(&config), Some(&previous), &gateway.connector, metrics) {
            Ok(next) => gateway.swap(next),
            Err(problem) => return rejected([format!("backends: {problem}")]),
        }
        for (resolver, new) in certificates {
            resolver.replace(new);
        }
        let generation = gateway.generation();
        let changes = changes(&previous.config.redacted(), &config.redacted());
        gateway.reloaded.store(Some(Arc::new(Reloaded { when: SystemTime::now(), generation, changes })));
        Outcome::Applied { generation }
    }

    /// Counts and logs an outcome.
    fn noted(&self, outcome: Outcome, asked: Asked) -> Outcome {
        let Some(gateway) = self.gateway.upgrade() else { return outcome };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (label, is_news) = match &outcome {
            Outcome::Applied { .. } => ("applied", true),
            Outcome::Rejected { problems } => ("rejected", *told != *problems),
            Outcome::Unchanged => ("unchanged", false),
        };
        if is_news || asked == Asked::Yes {
            gateway.metrics.reloads.with_label_values(&[label]).inc();
        }
        gateway.metrics.reload_ok.set(i64::from(label != "rejected"));
        match &outcome {
            Outcome::Applied { generation } => tracing::info!(generation, "configuration reloaded"),
            Outcome::Rejected { problems } if is_news || asked == Asked::Yes => {
                for problem in problems {
                    tracing::error!(problem, "configuration not reloaded; the old one goes on");
                }
            }
            Outcome::Unchanged if !told.is_empty() || asked == Asked::Yes => {
                tracing::info!("nothing to reload: the configuration is the one that runs");
            }
            Outcome::Rejected { .. } | Outcome::Unchanged => {}
        }
        *told = if let Outcome::Rejected { problems } = &outcome { problems.clone() } else { Vec::new() };
        drop(told);
        if label == "applied" {
            self.measure();
        }
        outcome
    }

    /// Sets the gauges of a configuration that has just been taken up.
    pub(crate) fn measure(&self) {
        let Some(gateway) = self.gateway.upgrade() else { return };
        let since_1970 = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        gateway.metrics.reload_ok.set(1);
        gateway.metrics.reload_ok_time.set(since_1970(SystemTime::now()));
        gateway.metrics.certificate_not_after.reset();
        for resolver in self.resolvers.iter().flatten() {
            for certificate in resolver.certificates().iter() {
                if let Some(not_after) = certificate.not_after {
                    let file = certificate.path.display().to_string();
                    gateway.metrics.certificate_not_after.with_label_values(&[&*file]).set(since_1970(not_after));
                }
            }
        }
    }
}

fn rejected(problems: impl IntoIterator<Item = String>) -> Outcome {
    Outcome::Rejected { problems: problems.into_iter().collect() }
}

/// Reloads when a file may have changed, until the gateway goes down.
async fn watch(reloader: Arc<Reloader>) {
    let (changed, mut changes) = mpsc::channel(1);
    // Watches as long as it is held.
    let mut _watcher = None;
    let mut watched = BTreeSet::new();
    loop {
        let Some(gateway) = reloader.gateway.upgrade() else { return };
        let (config, stopping) = (Arc::clone(&gateway.snapshot().config), gateway.until(Phase::Draining));
        drop(gateway);
        let folders = if config.reload.watch { folders(&config.files) } else { BTreeSet::new() };
        if folders != watched {
            _watcher = watch_folders(&folders, &changed);
            watched = folders;
            // What changed before anybody watched is not told.
            let _ = changed.try_send(());
        }
        tokio::select! {
            Some(()) = changes.recv() => {
                sleep(DEBOUNCE).await;
                while let Ok(Some(())) = timeout(Duration::ZERO, changes.recv()).await {}
            }
            () = sleep(config.reload.poll), if config.reload.watch => {}
            () = stopping => return,
            () = sleep(config.reload.poll), if !config.reload.watch => continue,
        }
        reloader.look(Asked::No).await;
    }
}

/// The folders that files lie in. Not the files: an editor's rename or a mounted ConfigMap's swap replaces those, and the
/// replacement would go unseen.
fn folders(files: &[PathBuf]) -> BTreeSet<PathBuf> {
    let parent = |file: &PathBuf| match file.parent() {
        Some(folder) if folder != Path::new("") => folder.to_path_buf(),
        _ => PathBuf::from("."),
    };
    files.iter().map(parent).collect()
}

/// Any event means "look"; what changed is found out by comparing.
fn watch_folders(folders: &BTreeSet<PathBuf>, changed: &mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    if folders.is_empty() {
        return None;
    }
    let changed = changed.clone();
    let tell = move |event: notify::Result<notify::Event>| {
        // Reading the files is an event too; looking again because of it would never end.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            let _ = changed.try_send(());
        }
    };
    let mut watcher = match notify::recommended_watcher(tell) {
        Ok(watcher) => watcher,
        Err(cause) => {
            tracing::warn!(%cause, "files cannot be watched; they are looked at every `reload.poll`");
            return None;
        }
    };
    for folder in folders {
        if let Err(cause) = watcher.watch(folder, RecursiveMode::NonRecursive) {
            let folder = folder.display();
            tracing::warn!(%folder, %cause, "folder cannot be watched; it is looked at every `reload.poll`");
        }
    }
    Some(watcher)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_changed_is_told_by_its_key_wherever_it_stands() {
        let old = json!({ "limits": [{ "name": "a", "rate": "1/s" }, { "name": "b", "rate": "2/s" }], "log": { "level": "info" } });
        let new = json!({ "limits": [{ "name": "b", "rate": "3/s" }], "log": { "level": "info" }, "threads": 2 });

        assert_eq!(
            changes(&old, &new),
            [
                "limits[a].name: \"a\" is gone",
                "limits[a].rate: \"1/s\" is gone",
                "limits[b].rate: \"2/s\" became \"3/s\"",
                "threads: 2 is new",
            ]
        );
        assert_eq!(changes(&old, &old), ["a secret, a certificate or another file that it names"]);
    }

    #[test]
    fn of_many_changes_some_are_told() {
        let many =
            |count: usize| (0..count).map(|key| (format!("{key:04}"), json!(key))).collect::<serde_json::Map<_, _>>();

        let told = changes(&Value::Object(many(1)), &Value::Object(many(TOLD + 10)));

        assert_eq!((told.len(), &*told[TOLD]), (TOLD + 1, "and 9 more"));
    }
}
