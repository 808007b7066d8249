//! The series of backends, which end with their backends: of a name that has left the configuration nothing is exported, once
//! nothing more can be counted under it. When the name comes back it is counted from 0, which Prometheus takes for a restart.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use arc_swap::ArcSwapOption;
use prometheus::core::{Collector, MetricVec, MetricVecBuilder};

use super::Metrics;

/// The label of a backend's name.
pub(super) const BACKEND: &str = "backend";

/// Ends the series of one family that are of a backend.
pub(super) type Forget = Box<dyn Fn(&str) + Send + Sync>;

/// How those of this family are ended.
pub(super) fn forget<B>(family: &MetricVec<B>) -> Forget
where
    B: MetricVecBuilder + 'static,
    MetricVec<B>: Collector,
{
    let family = family.clone();
    Box::new(move |backend| {
        let gathered = family.collect();
        for series in gathered.iter().flat_map(|family| family.get_metric()) {
            let labels: HashMap<&str, &str> = series.get_label().iter().map(|l| (l.name(), l.value())).collect();
            if labels.get(BACKEND) == Some(&backend) {
                // Nobody else ends series of this name meanwhile, so it is there.
                let _ = family.remove(&labels);
            }
        }
    })
}

/// The series of a backend's name. As long as this is held, what is counted under the name is exported; whoever counts by the
/// name, rather than by handles that it has, holds one meanwhile.
pub(crate) struct Series {
    backend: Box<str>,
    metrics: Arc<Metrics>,
}

impl Drop for Series {
    fn drop(&mut self) {
        self.metrics.forget(&self.backend);
    }
}

impl Metrics {
    /// The series of a backend: the same ones for every backend of that name.
    pub(crate) fn series(self: &Arc<Self>, backend: &str) -> Arc<Series> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = held.get(backend).and_then(std::sync::Weak::upgrade) {
            return series;
        }
        let series = Arc::new(Series { backend: backend.into(), metrics: Arc::clone(self) });
        held.insert(backend.into(), Arc::downgrade(&series));
        series
    }

    fn forget(&self, backend: &str) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        // The name may have come back while it went.
        if held.get(backend).is_some_and(|series| series.strong_count() > 0) {
            return;
        }
        held.remove(backend);
        self.of_backends.iter().for_each(|forget| forget(backend));
        self.tools.lock().unwrap_or_else(PoisonError::into_inner).retain(|(of, _), _| &**of != backend);
    }
}

/// A backend's own hold on its series, until it is retired.
pub(super) struct Hold(ArcSwapOption<Series>);

impl Hold {
    pub(super) fn new(series: Arc<Series>) -> Self {
        Self(ArcSwapOption::from(Some(series)))
    }

    pub(super) fn series(&self) -> Option<Arc<Series>> {
        self.0.load_full()
    }

    pub(super) fn release(&self) {
        self.0.store(None);
    }
}
