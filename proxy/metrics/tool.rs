//! What is counted for each tool, by its public name: so many of them have series of their own.

use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};

use super::series::Series;
use super::{MAX_TOOL_SERIES, Metrics};
use crate::error::Kind;

/// Backend and public tool name.
pub(super) type ToolKey = (Box<str>, Box<str>);

/// What is counted for one tool. A series comes to be when it is first touched.
pub(crate) struct ToolMetrics {
    calls: IntCounterVec,
    backend: Box<str>,
    tool: Box<str>,
    outcomes: [OnceLock<IntCounter>; Kind::ALL.len()],
    seconds: HistogramVec,
    duration: OnceLock<Histogram>,
}

impl ToolMetrics {
    pub(super) fn new(calls: &IntCounterVec, seconds: &HistogramVec, backend: &str, tool: &str) -> Self {
        Self {
            calls: calls.clone(),
            backend: backend.into(),
            tool: tool.into(),
            outcomes: Default::default(),
            seconds: seconds.clone(),
            duration: OnceLock::new(),
        }
    }

    /// Counts a call that ended.
    fn ended(&self, kind: Kind, took: Duration) {
        self.outcomes[kind as usize]
            .get_or_init(|| self.calls.with_label_values(&[&*self.backend, &*self.tool, kind.as_str()]))
            .inc();
        self.duration
            .get_or_init(|| self.seconds.with_label_values(&[&*self.backend, &*self.tool]))
            .observe(took.as_secs_f64());
    }
}

/// A call under way that will be counted: until then its series stay.
pub(crate) struct Counted {
    tool: Arc<ToolMetrics>,
    /// Of the backend; there are none of what nobody has.
    _series: Option<Arc<Series>>,
}

impl Counted {
    /// Of a tool whose backend's series are held.
    pub(crate) fn under(tool: &Arc<ToolMetrics>, series: Arc<Series>) -> Self {
        Self { tool: Arc::clone(tool), _series: Some(series) }
    }

    /// Counts it: it ended.
    pub(crate) fn ended(&self, kind: Kind, took: Duration) {
        self.tool.ended(kind, took);
    }
}

impl Metrics {
    /// The handles of a tool by its public name, the same ones whenever asked.
    pub(crate) fn tool(&self, backend: &str, tool: &str) -> Arc<ToolMetrics> {
        let mut tools = self.tools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = tools.get(&(backend.into(), tool.into()) as &ToolKey) {
            return Arc::clone(known);
        }
        if tools.len() >= MAX_TOOL_SERIES {
            return Arc::clone(&self.other_tool);
        }
        let new = Arc::new(ToolMetrics::new(&self.tool_calls, &self.tool_call_seconds, backend, tool));
        tools.insert((backend.into(), tool.into()), Arc::clone(&new));
        new
    }

    /// A call of what is counted as other tools.
    pub(crate) fn other_tool(&self) -> Counted {
        Counted { tool: Arc::clone(&self.other_tool), _series: None }
    }

    /// Ends the series of tools that `keep` does not want any more, unless a call of one may still be counted.
    pub(crate) fn retain_tools(&self, keep: impl Fn(&str, &str) -> bool) {
        let mut tools = self.tools.lock().unwrap_or_else(PoisonError::into_inner);
        tools.retain(|(backend, tool), handles| {
            // Whoever has handles got them here, and none are given out meanwhile.
            let kept = Arc::strong_count(handles) > 1 || keep(backend, tool);
            if !kept {
                for kind in Kind::ALL {
                    // A series that was never touched is not there to be removed.
                    let _ = self.tool_calls.remove_label_values(&[backend, tool, kind.as_str()]);
                }
                let _ = self.tool_call_seconds.remove_label_values(&[backend, tool]);
            }
            kept
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(metrics: &Metrics) -> String {
        String::from_utf8(metrics.text()).unwrap()
    }

    #[test]
    fn tools_beyond_the_cap_share_one_series() {
        let metrics = Metrics::new();
        for i in 0..MAX_TOOL_SERIES + 5 {
            metrics.tool("b", &format!("t{i}")).ended(Kind::Ok, Duration::ZERO);
        }

        assert!(
            text(&metrics).contains("toolgate_tool_calls_total{backend=\"_OTHER\",outcome=\"ok\",tool=\"_OTHER\"} 5")
        );
    }

    #[test]
    fn a_tool_that_went_leaves_no_series_once_its_last_call_is_counted() {
        let metrics = Metrics::new();
        let under_way = metrics.tool("b", "gone");
        under_way.ended(Kind::Ok, Duration::ZERO);

        metrics.retain_tools(|_, tool| tool != "gone");
        assert!(text(&metrics).contains("tool=\"gone\""));
        under_way.ended(Kind::Timeout, Duration::ZERO);
        drop(under_way);
        metrics.retain_tools(|_, tool| tool != "gone");

        assert!(!text(&metrics).contains("tool=\"gone\""));
    }
}
