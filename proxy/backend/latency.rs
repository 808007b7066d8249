//! How long a backend took to its first byte, over the last quarter of an hour.

use std::collections::VecDeque;
use std::time::Duration;

use prometheus::Histogram;

/// Samples that are kept: one for each sweep.
pub(crate) const SAMPLES: usize = 60;

/// The means of the last intervals; none of one in which nothing was answered.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    means: VecDeque<Option<Duration>>,
    /// What was counted when the last interval ended.
    before: (f64, u64),
}

impl Latency {
    /// Ends an interval.
    pub(crate) fn sample(&mut self, counted: &Histogram) {
        let now = (counted.get_sample_sum(), counted.get_sample_count());
        let count = now.1.saturating_sub(self.before.1);
        let seconds = now.0 - self.before.0;
        self.before = now;
        if self.means.len() >= SAMPLES {
            self.means.pop_front();
        }
        // A count that loses digits here is one of centuries.
        #[expect(clippy::cast_precision_loss, reason = "calls of one interval")]
        let mean = (count > 0).then(|| Duration::try_from_secs_f64(seconds / count as f64).unwrap_or_default());
        self.means.push_back(mean);
    }

    /// The oldest first.
    pub(crate) fn means(&self) -> impl ExactSizeIterator<Item = Option<Duration>> {
        self.means.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use prometheus::HistogramOpts;

    use super::*;

    #[test]
    fn each_interval_has_a_mean_of_its_own_and_old_ones_go() {
        let counted = Histogram::with_opts(HistogramOpts::new("a", "b")).unwrap();
        let mut latency = Latency::default();
        latency.sample(&counted);
        counted.observe(0.1);
        counted.observe(0.3);
        latency.sample(&counted);
        counted.observe(0.4);
        latency.sample(&counted);

        let millis = |latency: &Latency| latency.means().map(|mean| Some(mean?.as_millis())).collect::<Vec<_>>();
        assert_eq!(millis(&latency), [None, Some(200), Some(400)]);
        (0..SAMPLES).for_each(|_| latency.sample(&counted));
        assert_eq!(millis(&latency), vec![None; SAMPLES]);
    }
}
