import { readFile } from 'node:fs/promises';
import { beforeAll, expect, test } from 'vitest';
import { Client } from '../generated/throughline.js';
import { loadCore } from '../src/core.js';

interface Output {
  type: string;
  frame?: { type: string; commands?: Record<string, unknown>[] };
  put?: [string, string][];
  delete?: string[];
  seq?: number;
  record?: unknown;
}

const SESSION = 'ws_mwor0dc0_0ez6uz7hcaq7bct63a1rip2iv';
const NOON = Date.UTC(2026, 10, 20, 12);
let funnel: unknown;
let frames: string[];

beforeAll(async () => {
  await loadCore((await readFile(new URL('../generated/throughline_bg.wasm', import.meta.url))) as BufferSource);
  const golden = async (name: string) =>
    JSON.parse(await readFile(new URL(`../../../core/tests/golden/${name}`, import.meta.url), 'utf8')) as unknown;
  funnel = ((await golden('verdicts.json')) as { funnels: Record<string, unknown> }).funnels['default'];
  frames = ((await golden('frames.json')) as { server: string[] }).server;
});

function offline(stored: [string, string][] = []): Client {
  const client = new Client(SESSION, 'browser', stored);
  client.setFunnel(funnel, 'hash');
  client.takeOutputs();
  return client;
}

function outputs(client: Client): Output[] {
  return client.takeOutputs() as Output[];
}

test('a patch holds the fields that changed since the last one, and nothing else', () => {
  const client = offline();
  client.submit({ type: 'create', email: undefined }, NOON);
  const whole = client.takePatch() as Record<string, unknown>;
  expect(Object.keys(whole)).toHaveLength(27);
  expect(whole).toMatchObject({ id: SESSION, version: 1, status: 'pending', email: null, amount: 0 });
  client.submit({ type: 'setEmail', email: 'ada@example.com' }, NOON + 1);
  const patch = client.takePatch() as Record<string, unknown>;
  expect(Object.keys(patch).sort()).toEqual(['email', 'lastAccessedAt', 'updatedAt', 'version']);
  expect(patch['email']).toBe('ada@example.com');
  expect(client.takePatch()).toBeUndefined();
});

test('a refused command is an object with code, mendableBy and message', () => {
  const client = offline();
  client.submit({ type: 'create' }, NOON);
  const refused = (command: unknown): unknown => {
    try {
      return client.submit(command, NOON);
    } catch (reason) {
      return reason;
    }
  };
  expect(refused({ type: 'setEmail', email: 'nonsense' })).toMatchObject({
    code: 'invalidField',
    mendableBy: 'buyerInput',
  });
  expect(refused({ type: 'setEmail', email: 'a@b.co', amount: 1 })).toEqual({
    code: 'malformedCommand',
    mendableBy: 'permanent',
    message: 'amount: is not known here',
  });
});

test('what is stored comes back, and what is damaged is told apart', () => {
  const client = offline();
  const metadata = { quoted: '"\\\u0007\n', float: -1e300, small: 1e-7, deep: [{ a: null }, true, 2 ** 53 - 1] };
  client.submit({ type: 'create', metadata }, NOON);
  const stored = outputs(client).flatMap((output) => output.put ?? []);
  expect(stored).toHaveLength(1);
  const damaged: [string, string] = [`${SESSION}/browser/command/000000000002`, '1:0000000000000000:{}'];
  const again = offline([...stored, damaged]);
  expect(again.takeDamaged()).toEqual([damaged[0]]);
  expect(again.takePatch()).toMatchObject({ metadata });
});

test('a command is sent with its number once it is stored', () => {
  const client = offline();
  client.connected();
  expect(outputs(client)[0]?.frame).toMatchObject({ type: 'hello', sessionId: SESSION, clientId: 'browser' });
  client.handle(JSON.parse(frames[0] ?? ''));
  const seq = client.submit({ type: 'create' }, NOON);
  expect(outputs(client).some((output) => output.type === 'send')).toBe(false);
  client.commandsStored(seq);
  const sent = outputs(client).filter((output) => output.type === 'send');
  expect(sent[0]?.frame?.commands).toEqual([{ type: 'create', clientId: 'browser', seq }]);
});

test('every frame of a server can be read, and records are stored as they came', () => {
  for (const text of frames) {
    const client = offline();
    client.connected();
    client.handle(JSON.parse(text));
    client.takeOutputs();
  }
  const client = offline();
  const record = {
    version: 1,
    at: '2026-11-20T12:00:00.000Z',
    by: 'browser',
    ofALaterVersion: { kept: true },
    event: {
      type: 'created',
      id: SESSION,
      epoch: 9,
      funnel: { id: 'default', version: 1 },
      currency: 'USD',
      step: 'checkout',
      source: 'client',
      expiresAt: '2026-11-21T12:00:00.000Z',
    },
  };
  client.handle({ type: 'events', epoch: 9, records: [record] });
  const applied = outputs(client);
  expect(applied.find((output) => output.type === 'applied')?.record).toEqual(record);
  expect(applied.flatMap((output) => output.put ?? [])).toEqual([]);
  // What may still turn out not to have happened is not stored.
  client.handle({ type: 'durable', version: 1 });
  const [key, sealed] = outputs(client).flatMap((output) => output.put ?? [])[0] ?? [];
  expect(key).toBe(`${SESSION}/browser/record/000000000001`);
  expect(sealed?.endsWith(JSON.stringify(record))).toBe(true);
});

test('a client that the server does not know any more goes on under a new id with all that it had', () => {
  const client = offline();
  client.submit({ type: 'create' }, NOON);
  const old = outputs(client).flatMap((output) => output.put ?? []);
  client.connected();
  client.submit({ type: 'setEmail', email: 'ada@example.com' }, NOON);
  old.push(...outputs(client).flatMap((output) => output.put ?? []));
  const welcome = { type: 'welcome', protocol: 1, sessionId: SESSION, epoch: 0, lastSeq: 0, serverTime: new Date(NOON).toISOString() };
  client.handle({ ...welcome, version: 0, durableVersion: 0 });
  client.handle({ type: 'accepted', clientId: 'browser', seq: 1, version: 1 });
  client.handle({ type: 'durable', version: 1 });
  client.takeOutputs();

  // The server expects a number that has left the outbox, and says in a new welcome that it has lost it.
  client.handle({ type: 'gap', clientId: 'browser', expected: 1 });
  expect(outputs(client).some(({ frame }) => frame?.type === 'hello')).toBe(true);
  client.handle({ ...welcome, version: 1, durableVersion: 1 });
  client.handle({ type: 'gap', clientId: 'browser', expected: 1 });
  expect(outputs(client).some((output) => output.type === 'needsNewClient')).toBe(true);
  client.renewClient('again');
  const stored = outputs(client).find((output) => output.type === 'store');
  const remaining = new Map([...old.slice(1), ...(stored?.put ?? [])]);
  for (const key of stored?.delete ?? []) remaining.delete(key);
  expect([...remaining.keys()]).toEqual([`${SESSION}/again/command/000000000001`]);
  expect(stored?.seq).toBe(1);
});
