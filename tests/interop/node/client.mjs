// A client on npm `@modelcontextprotocol/client`. `client.mjs auto|legacy`; obeys the line protocol of `clients/lines.py`.

import { createInterface } from 'node:readline';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

const TEN_MINUTES = 600_000;
const mode = process.argv[2];
const sessions = new Map();
const calls = new Map();

const say = (message) => process.stdout.write(JSON.stringify(message) + '\n');

const orders = {
  async connect({ session, url }) {
    const client = new Client({ name: 'interop-node', version: '1' }, { versionNegotiation: { mode } });
    client.setNotificationHandler('notifications/tools/list_changed', () => say({ session, event: 'tools_changed' }));
    const transport = new StreamableHTTPClientTransport(new URL(url));
    await client.connect(transport);
    sessions.set(session, { client, transport });
    return { protocol: client.getNegotiatedProtocolVersion() };
  },

  async list({ session }) {
    const { client } = sessions.get(session);
    const tools = [];
    let cursor;
    do {
      const page = await client.listTools(cursor === undefined ? undefined : { cursor }, { cacheMode: 'bypass' });
      tools.push(...page.tools);
      cursor = page.nextCursor;
    } while (cursor !== undefined);
    return { tools };
  },

  async call({ id, session, name, arguments: args, progress }) {
    const abort = new AbortController();
    calls.set(id, abort);
    const options = { signal: abort.signal, timeout: TEN_MINUTES };
    if (progress) options.onprogress = ({ progress, total, message }) => say({ id, progress: { progress, total, message } });
    try {
      return await sessions.get(session).client.callTool({ name, arguments: args }, options);
    } finally {
      calls.delete(id);
    }
  },

  async cancel({ call }) {
    calls.get(call).abort('cancelled by the harness');
  },

  async close({ session }) {
    const { client, transport } = sessions.get(session);
    sessions.delete(session);
    await transport.terminateSession();
    await client.close();
  },
};

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
