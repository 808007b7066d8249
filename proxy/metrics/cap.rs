//! The caps whose reaching is counted.

/// What there is only so much of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Cap {
    /// Bytes of one message that is made over for another era.
    Answer,
    /// Bytes of one request.
    Body,
    /// Calls under way of one session.
    Calls,
    /// Bytes of one event that is held back to be looked at.
    Event,
    /// Requests under way to one backend.
    Inflight,
    /// Processes of one backend.
    Instances,
    /// Bytes of one message of a process.
    Line,
    /// Calls that wait for their client's input.
    Parked,
    /// Questions that one client has yet to answer.
    Questions,
    /// Client sessions that something is held for.
    Sessions,
    /// Sessions that share one process.
    Sharing,
    /// Event streams of one session.
    Streams,
    /// Resources of one session or stream.
    Subscriptions,
}

impl Cap {
    /// Every cap.
    pub(crate) const ALL: [Self; 13] = [
        Self::Answer,
        Self::Body,
        Self::Calls,
        Self::Event,
        Self::Inflight,
        Self::Instances,
        Self::Line,
        Self::Parked,
        Self::Questions,
        Self::Sessions,
        Self::Sharing,
        Self::Streams,
        Self::Subscriptions,
    ];

    /// The label value.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Body => "body",
            Self::Calls => "calls",
            Self::Event => "event",
            Self::Inflight => "inflight",
            Self::Instances => "instances",
            Self::Line => "line",
            Self::Parked => "parked",
            Self::Questions => "questions",
            Self::Sessions => "sessions",
            Self::Sharing => "sharing",
            Self::Streams => "streams",
            Self::Subscriptions => "subscriptions",
        }
    }
}
