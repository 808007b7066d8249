//! Two small MCP servers inside the binary, and a configuration with a limit to see: something to point a client at before
//! there is anything to configure. They are ordinary backends to the gateway, reached over loopback HTTP.

use std::net::TcpListener;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use toolgate_config::Config;

use crate::app::App;
use crate::era::{Era, Version};
use crate::error::{INVALID_PARAMS, METHOD_NOT_FOUND};
use crate::jsonrpc::{self, ErrorObject, Message, Request};
use crate::reply::Reply;

/// Where the demo serves MCP.
const ADDRESS: &str = "127.0.0.1:8080";
/// Where the demo's operator looks.
const ADMIN: &str = "127.0.0.1:9464";
/// The longest that `clock__wait` waits.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// Which of the two servers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Server {
    Clock,
    Text,
}

/// Builds the demo, ready to start.
///
/// # Errors
/// When a port is taken.
pub(crate) fn build() -> anyhow::Result<App> {
    let clock = TcpListener::bind("127.0.0.1:0")?;
    let text = TcpListener::bind("127.0.0.1:0")?;
    for socket in [&clock, &text] {
        socket.set_nonblocking(true)?;
    }
    let config = config(clock.local_addr()?.port(), text.local_addr()?.port())?;
    let mut app = App::bind(config)?;
    app.add_demo(clock, Server::Clock)?;
    app.add_demo(text, Server::Text)?;
    Ok(app)
}

fn config(clock: u16, text: u16) -> Result<Config, toolgate_config::Report> {
    let yaml = format!(
        "listeners: [{{ address: \"{ADDRESS}\" }}]\n\
         admin: {{ address: \"{ADMIN}\" }}\n\
         backends:\n\
         - {{ name: clock, url: \"http://127.0.0.1:{clock}/mcp\" }}\n\
         - {{ name: text, url: \"http://127.0.0.1:{text}/mcp\" }}\n\
         limits:\n\
         - {{ name: shout-slowly, tools: [text__shout], key: session, rate: 3/m }}\n\
         drain: {{ delay: 0s, timeout: 5s }}\n"
    );
    toolgate_config::parse(std::path::Path::new("demo.yaml"), &yaml, &|_| None)
}

/// What is printed when the demo runs.
pub(crate) fn greeting() -> String {
    let accept = "-H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream'";
    format!(
        r#"Toolgate demo: two MCP servers (clock, text) behind one URL.

  MCP      http://{ADDRESS}/mcp
  status   http://{ADMIN}/          (in a browser; also /metrics, /backends, /catalog, /config, /readyz)

Call a tool (paste both lines; the second one, repeated, meets the session's limit at the fourth call within a minute):

  SESSION=$(curl -si http://{ADDRESS}/mcp {accept} -d '{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"2025-11-25","capabilities":{{}},"clientInfo":{{"name":"curl","version":"1"}}}}}}' | tr -d '\r' | awk 'tolower($1)=="mcp-session-id:"{{print $2}}')
  curl -s http://{ADDRESS}/mcp {accept} -H "Mcp-Session-Id: $SESSION" -d '{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"text__shout","arguments":{{"text":"hello"}}}}}}'

Point a client at it, for example with

  {{ "mcpServers": {{ "toolgate": {{ "type": "http", "url": "http://{ADDRESS}/mcp" }} }} }}

Ctrl-C stops it.
"#
    )
}

impl Server {
    fn name(self) -> &'static str {
        match self {
            Self::Clock => "clock",
            Self::Text => "text",
        }
    }

    /// Answers like any legacy MCP server, with a session so that there is one to see.
    pub(crate) async fn answer(self, verb: &Method, body: &Bytes) -> Reply {
        match *verb {
            Method::POST => {}
            Method::DELETE => return Reply::status(StatusCode::NO_CONTENT),
            _ => return Reply::status(StatusCode::METHOD_NOT_ALLOWED),
        }
        match jsonrpc::parse(body) {
            Ok(Message::Request(request)) => self.request(&request, body).await,
            Ok(_) => Reply::accepted(),
            Err(malformed) => Reply::error(&malformed.into(), None, Era::Legacy),
        }
    }

    async fn request(self, request: &Request<'_>, body: &[u8]) -> Reply {
        let result = match &*request.method {
            "initialize" => {
                let mut reply = Reply::result(request.id.raw(), [self.hello(request).to_string().into()]);
                let session = HeaderValue::from_static(self.name());
                reply.headers.push((HeaderName::from_static("mcp-session-id"), session));
                return reply;
            }
            "ping" => json!({}),
            "tools/list" => json!({ "tools": self.tools() }),
            "tools/call" => match self.call(&arguments(body), request.params.name().as_deref()).await {
                Ok(text) => json!({ "content": [{ "type": "text", "text": text }] }),
                Err(Wrong::Argument(text)) => json!({ "content": [{ "type": "text", "text": text }], "isError": true }),
                Err(Wrong::Tool) => return error(request, INVALID_PARAMS, "Unknown tool"),
            },
            _ => return error(request, METHOD_NOT_FOUND, "Method not found"),
        };
        Reply::result(request.id.raw(), [result.to_string().into()])
    }

    fn hello(self, request: &Request<'_>) -> Value {
        let asked = request.params.protocol_version().and_then(|version| Version::read(&version));
        json!({
            "protocolVersion": asked.unwrap_or(Version::LATEST).as_str(),
            "capabilities": { "tools": {} },
            "serverInfo": { "name": format!("toolgate-demo-{}", self.name()), "version": env!("CARGO_PKG_VERSION") },
        })
    }

    fn tools(self) -> Value {
        let tool = |name: &str, description: &str, properties: Value| {
            let required: Vec<String> =
                properties.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
            let schema = json!({ "type": "object", "properties": properties, "required": required });
            json!({ "name": name, "description": description, "inputSchema": schema })
        };
        match self {
            Self::Clock => json!([
                tool("now", "Seconds since 1970, UTC", json!({})),
                tool("wait", "Waits for up to ten seconds", json!({ "seconds": { "type": "number" } })),
            ]),
            Self::Text => json!([
                tool(
                    "shout",
                    "Upper case. Limited to three calls a minute and session",
                    json!({ "text": { "type": "string" } })
                ),
                tool("count", "Counts words", json!({ "text": { "type": "string" } })),
            ]),
        }
    }

    async fn call(self, arguments: &Value, tool: Option<&str>) -> Result<String, Wrong> {
        let text = || arguments["text"].as_str().ok_or(Wrong::Argument("`text` must be a string"));
        match (self, tool) {
            (Self::Clock, Some("now")) => {
                Ok(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()).to_string())
            }
            (Self::Clock, Some("wait")) => {
                let asked = arguments["seconds"].as_f64().ok_or(Wrong::Argument("`seconds` must be a number"))?;
                let wait = Duration::try_from_secs_f64(asked)
                    .map_err(|_| Wrong::Argument("`seconds` must not be negative"))?;
                tokio::time::sleep(wait.min(MAX_WAIT)).await;
                Ok(format!("waited {:.1}s", wait.min(MAX_WAIT).as_secs_f64()))
            }
            (Self::Text, Some("shout")) => Ok(text()?.to_uppercase()),
            (Self::Text, Some("count")) => Ok(text()?.split_whitespace().count().to_string()),
            _ => Err(Wrong::Tool),
        }
    }
}

/// What can be wrong with a call.
enum Wrong {
    Argument(&'static str),
    Tool,
}

fn arguments(body: &[u8]) -> Value {
    let message: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    message["params"]["arguments"].clone()
}

fn error(request: &Request<'_>, code: i64, message: &'static str) -> Reply {
    let error = ErrorObject { code, message: message.into(), data: None };
    Reply::json(vec![jsonrpc::error_body(Some(request.id.raw()), &error)])
}
