//! Just enough of `params` to route, refuse and bridge a message. Values of a wrong type do no harm here: they are kept
//! raw, and [`text`] or the accessor of the same name says `None`.

use std::borrow::Cow;

use serde::de::MapAccess;
use serde_json::value::RawValue;

use super::id::Id;
use super::json::text;
use super::object::{Fault, Fields, nested, once, skip};

/// The keys of `params` that any method's treatment needs.
#[derive(Debug, Default)]
pub(crate) struct Params<'a> {
    pub(crate) arguments: Option<&'a RawValue>,
    pub(crate) capabilities: Option<&'a RawValue>,
    pub(crate) client_info: Option<&'a RawValue>,
    pub(crate) cursor: Option<&'a RawValue>,
    pub(crate) input_responses: Option<&'a RawValue>,
    pub(crate) level: Option<&'a RawValue>,
    pub(crate) meta: Option<Box<Meta<'a>>>,
    /// Of an elicitation.
    pub(crate) mode: Option<&'a RawValue>,
    pub(crate) name: Option<&'a RawValue>,
    pub(crate) notifications: Option<&'a RawValue>,
    pub(crate) progress_token: Option<&'a RawValue>,
    pub(crate) protocol_version: Option<&'a RawValue>,
    /// `ref`, what a completion is for.
    pub(crate) reference: Option<&'a RawValue>,
    pub(crate) request_id: Option<&'a RawValue>,
    pub(crate) request_state: Option<&'a RawValue>,
    pub(crate) task_id: Option<&'a RawValue>,
    pub(crate) uri: Option<&'a RawValue>,
}

/// The keys of `params._meta` that are the gateway's business. Those without a doc comment bear the prefix
/// `io.modelcontextprotocol/`.
#[derive(Debug, Default)]
pub(crate) struct Meta<'a> {
    pub(crate) client_capabilities: Option<&'a RawValue>,
    pub(crate) client_info: Option<&'a RawValue>,
    pub(crate) log_level: Option<&'a RawValue>,
    /// `progressToken`, without a prefix.
    pub(crate) progress_token: Option<&'a RawValue>,
    pub(crate) protocol_version: Option<&'a RawValue>,
    pub(crate) subscription_id: Option<&'a RawValue>,
    /// `traceparent`, without a prefix.
    pub(crate) traceparent: Option<&'a RawValue>,
}

impl<'a> Params<'a> {
    pub(crate) fn level(&self) -> Option<Cow<'a, str>> {
        self.level.and_then(text)
    }

    pub(crate) fn mode(&self) -> Option<Cow<'a, str>> {
        self.mode.and_then(text)
    }

    pub(crate) fn name(&self) -> Option<Cow<'a, str>> {
        self.name.and_then(text)
    }

    /// Of the handshake; see [`Meta::protocol_version`] for the other one.
    pub(crate) fn protocol_version(&self) -> Option<Cow<'a, str>> {
        self.protocol_version.and_then(text)
    }

    pub(crate) fn request_id(&self) -> Option<Id<'a>> {
        self.request_id.and_then(|raw| Id::read(raw.get()))
    }

    pub(crate) fn task_id(&self) -> Option<Cow<'a, str>> {
        self.task_id.and_then(text)
    }

    pub(crate) fn uri(&self) -> Option<Cow<'a, str>> {
        self.uri.and_then(text)
    }
}

impl<'a> Meta<'a> {
    pub(crate) fn log_level(&self) -> Option<Cow<'a, str>> {
        self.log_level.and_then(text)
    }

    pub(crate) fn protocol_version(&self) -> Option<Cow<'a, str>> {
        self.protocol_version.and_then(text)
    }
}

impl<'a> Fields<'a> for Params<'a> {
    const NAME: &'static str = "`params`";

    fn read<A: MapAccess<'a>>(&mut self, key: &str, map: &mut A) -> Result<Option<Fault>, A::Error> {
        let slot = match key {
            "_meta" => return nested(&mut self.meta, key, map),
            "arguments" => &mut self.arguments,
            "capabilities" => &mut self.capabilities,
            "clientInfo" => &mut self.client_info,
            "cursor" => &mut self.cursor,
            "inputResponses" => &mut self.input_responses,
            "level" => &mut self.level,
            "mode" => &mut self.mode,
            "name" => &mut self.name,
            "notifications" => &mut self.notifications,
            "progressToken" => &mut self.progress_token,
            "protocolVersion" => &mut self.protocol_version,
            "ref" => &mut self.reference,
            "requestId" => &mut self.request_id,
            "requestState" => &mut self.request_state,
            "taskId" => &mut self.task_id,
            "uri" => &mut self.uri,
            _ => return skip(map),
        };
        once(slot, key, map)
    }
}

impl<'a> Fields<'a> for Meta<'a> {
    const NAME: &'static str = "`_meta`";

    fn read<A: MapAccess<'a>>(&mut self, key: &str, map: &mut A) -> Result<Option<Fault>, A::Error> {
        let slot = match key {
            "io.modelcontextprotocol/clientCapabilities" => &mut self.client_capabilities,
            "io.modelcontextprotocol/clientInfo" => &mut self.client_info,
            "io.modelcontextprotocol/logLevel" => &mut self.log_level,
            "io.modelcontextprotocol/protocolVersion" => &mut self.protocol_version,
            "io.modelcontextprotocol/subscriptionId" => &mut self.subscription_id,
            "progressToken" => &mut self.progress_token,
            "traceparent" => &mut self.traceparent,
            _ => return skip(map),
        };
        once(slot, key, map)
    }
}
