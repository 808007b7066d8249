// A client on npm `@modelcontextprotocol/client`. `client.mjs auto|legacy|2026-07-28`; obeys the line protocol of
// `clients/lines.py`.

import { createInterface } from 'node:readline';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

const TEN_MINUTES = 600_000;
const MODERN = '2026-07-28';
const LOG_LEVEL = 'io.modelcontextprotocol/logLevel';
const FRESH = { cacheMode: 'bypass' };
const mode = process.argv[2] === MODERN ? { pin: MODERN } : process.argv[2];
const sessions = new Map();
const calls = new Map();

const say = (message) => process.stdout.write(JSON.stringify(message) + '\n');

const orders = {
  async connect({ session, url, offers = [], answers = {} }) {
    const capabilities = Object.fromEntries(offers.map((offer) => [offer, {}]));
    const client = new Client({ name: 'interop-node', version: '1' }, { versionNegotiation: { mode }, capabilities });
    const held = { client, answers, meta: undefined };
    hear(session, client);
    answer(session, held, offers);
    held.transport = new StreamableHTTPClientTransport(new URL(url));
    await client.connect(held.transport);
    sessions.set(session, held);
    const protocol = client.getNegotiatedProtocolVersion();
    held.modern = protocol === MODERN;
    return { protocol };
  },

  async list({ session }) {
    return { tools: await everyPage(session, 'listTools', 'tools') };
  },

  async prompts({ session }) {
    return { prompts: await everyPage(session, 'listPrompts', 'prompts') };
  },

  async resources({ session }) {
    return { resources: await everyPage(session, 'listResources', 'resources') };
  },

  async templates({ session }) {
    return { templates: await everyPage(session, 'listResourceTemplates', 'resourceTemplates') };
  },

  async call({ id, session, name, arguments: args, progress }) {
    const { client, meta } = sessions.get(session);
    const abort = new AbortController();
    calls.set(id, abort);
    const options = { signal: abort.signal, timeout: TEN_MINUTES };
    if (progress) options.onprogress = ({ progress, total, message }) => say({ id, progress: { progress, total, message } });
    try {
      return await client.callTool({ name, arguments: args, ...(meta && { _meta: meta }) }, options);
    } finally {
      calls.delete(id);
    }
  },

  async cancel({ call }) {
    calls.get(call).abort('cancelled by the harness');
  },

  async get_prompt({ session, name, arguments: args }) {
    return await sessions.get(session).client.getPrompt({ name, arguments: args });
  },

  async read({ session, uri }) {
    return await sessions.get(session).client.readResource({ uri }, FRESH);
  },

  async subscribe({ session, uri }) {
    const { client, modern } = sessions.get(session);
    if (modern) await client.listen({ resourceSubscriptions: [uri] });
    else await client.subscribeResource({ uri });
  },

  async watch({ session }) {
    const { client, modern } = sessions.get(session);
    if (modern) await client.listen({ toolsListChanged: true, promptsListChanged: true, resourcesListChanged: true });
  },

  async complete({ session, ref, argument }) {
    return await sessions.get(session).client.complete({ ref, argument });
  },

  async set_level({ session, level }) {
    const held = sessions.get(session);
    if (held.modern) held.meta = { [LOG_LEVEL]: level };
    else await held.client.setLoggingLevel(level);
  },

  async script({ session, answers }) {
    sessions.get(session).answers = answers;
  },

  async close({ session }) {
    const { client, transport } = sessions.get(session);
    sessions.delete(session);
    await transport.terminateSession();
    await client.close();
  },
};

// Passes on what the server tells without being asked.
function hear(session, client) {
  for (const list of ['tools', 'prompts', 'resources']) {
    client.setNotificationHandler(`notifications/${list}/list_changed`, () => say({ session, event: `${list}_changed` }));
  }
  client.setNotificationHandler('notifications/resources/updated', ({ params }) =>
    say({ session, event: 'updated', uri: params.uri }),
  );
  client.setNotificationHandler('notifications/message', ({ params }) =>
    say({ session, event: 'log', level: params.level, data: params.data }),
  );
}

// Answers the server's questions as the harness has scripted it.
function answer(session, held, offers) {
  const ask = (kind, question) => {
    say({ session, event: 'asked', kind, question });
    return held.answers[kind];
  };
  const handlers = {
    elicitation: ['elicitation/create', ({ params }) => ask('elicitation', params.message)],
    sampling: [
      'sampling/createMessage',
      ({ params }) => {
        const { model, text } = ask('sampling', [params.messages[0].content].flat()[0].text);
        return { model, role: 'assistant', content: { type: 'text', text } };
      },
    ],
    roots: ['roots/list', () => ({ roots: ask('roots').map((uri) => ({ uri })) })],
  };
  for (const offer of offers) held.client.setRequestHandler(...handlers[offer]);
}

async function everyPage(session, method, items) {
  const { client } = sessions.get(session);
  const found = [];
  let cursor;
  do {
    const page = await client[method](cursor === undefined ? undefined : { cursor }, FRESH);
    found.push(...page[items]);
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  return found;
}

function describe(order, problem) {
  if (order.do === 'call' && String(problem).includes('cancelled by the harness')) {
    return { code: 'cancelled', message: String(problem) };
  }
  return { code: problem?.code ?? null, message: problem?.message ?? String(problem) };
}

async function obey(order) {
  try {
    say({ id: order.id, ok: (await orders[order.do](order)) ?? null });
  } catch (problem) {
    say({ id: order.id, error: describe(order, problem) });
  }
}

for await (const line of createInterface({ input: process.stdin })) obey(JSON.parse(line));
await Promise.allSettled([...sessions.keys()].map((session) => orders.close({ session })));
process.exit(0);
