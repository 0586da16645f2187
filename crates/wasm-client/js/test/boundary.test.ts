import { readFile } from 'node:fs/promises';
import { beforeAll, expect, test } from 'vitest';
import { Client } from '../generated/throughline.js';
import { loadCore } from '../src/core.js';

interface Output {
  type: string;
  clientId?: string;
  commands?: string;
  frames?: string[];
  frame?: string;
  seq?: number;
  record?: unknown;
  patch?: Record<string, unknown>;
}

const SESSION = 'ws_mwor0dc0_0ez6uz7hcaq7bct63a1rip2iv';
const NOON = Date.UTC(2026, 10, 20, 12);
let funnel: unknown;
let frames: string[];

beforeAll(async () => {
  await loadCore(() => readFile(new URL('../generated/throughline_bg.wasm', import.meta.url)));
  const golden = async (name: string) =>
    JSON.parse(await readFile(new URL(`../../../core/tests/golden/${name}`, import.meta.url), 'utf8')) as unknown;
  funnel = ((await golden('verdicts.json')) as { funnels: Record<string, unknown> }).funnels['default'];
  frames = ((await golden('frames.json')) as { server: string[] }).server;
});

function offline(stored: [string, string][] = []): Client {
  const client = Client.open(SESSION, 'browser', JSON.stringify(stored));
  if (!client) throw new Error('the ids are ids');
  expect(client.setFunnel(JSON.stringify(funnel), 'hash')).toBeUndefined();
  return client;
}

function read<T>(text = '[]'): { list: T[]; texts: string[] } {
  const [list, ...texts] = text.split('\u0001');
  return { list: JSON.parse(list ?? '') as T[], texts };
}

function outputs(client: Client): Output[] {
  const { list: outputs, texts } = read<Output>(client.takeOutputs());
  for (const output of outputs) {
    if (output.frame !== undefined) output.frame = texts[Number(output.frame)] ?? '';
    if (output.commands !== undefined) output.commands = texts[Number(output.commands)] ?? '';
    if (output.frames) output.frames = output.frames.map((number) => texts[Number(number)] ?? '');
  }
  return outputs;
}

/** What is to be stored: keys with texts, or without where they are to be deleted. */
function writes(client: Client): [key: string, text: string | undefined][] {
  const { list, texts } = read<{ changes: [string, number?][] }>(client.takeWrites());
  return list.flatMap(({ changes }) => changes).map(([key, text]) => [key, text === undefined ? undefined : texts[text]]);
}

function submit(client: Client, command: unknown, now = NOON): unknown {
  const refusal = client.submit(JSON.stringify(command), now);
  return refusal === undefined ? client.lastSeq() : JSON.parse(refusal);
}

function patch(client: Client): Record<string, unknown> | undefined {
  return outputs(client).find(({ type }) => type === 'changed')?.patch;
}

function handle(client: Client, frame: unknown): void {
  expect(client.handle(typeof frame === 'string' ? frame : JSON.stringify(frame))).toBeTypeOf('number');
}

function frame(output: Output | undefined): { type: string; commands?: Record<string, unknown>[] } {
  return JSON.parse(output?.frame ?? '{}') as { type: string };
}

test('a patch holds the fields that changed since the last one, and nothing else', () => {
  const client = offline();
  submit(client, { type: 'create', email: undefined }, NOON);
  const whole = patch(client) ?? {};
  expect(Object.keys(whole)).toHaveLength(27);
  expect(whole).toMatchObject({ id: SESSION, version: 1, status: 'pending', email: null, amount: 0 });
  submit(client, { type: 'setEmail', email: 'ada@example.com' }, NOON + 1);
  const changed = patch(client) ?? {};
  expect(Object.keys(changed).sort()).toEqual(['email', 'lastAccessedAt', 'updatedAt', 'version']);
  expect(changed['email']).toBe('ada@example.com');
  expect(patch(client)).toBeUndefined();
});

test('a refused command is an object with code, mendableBy and message', () => {
  const client = offline();
  submit(client, { type: 'create' }, NOON);
  const refused = (command: unknown): unknown => submit(client, command);
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
  submit(client, { type: 'create', metadata }, NOON);
  client.takeOutputs();
  const stored = writes(client) as [string, string][];
  expect(stored).toHaveLength(1);
  expect(client.hasWrites()).toBe(false);
  const damaged: [string, string] = [`${SESSION}/command/browser/000000000002`, '1:{"cut off'];
  const again = offline([...stored, damaged]);
  expect(JSON.parse(again.takeDamaged())).toEqual([damaged[0]]);
  expect(patch(again)).toMatchObject({ metadata });
});

test('a command is sent with its number once it is stored', () => {
  const client = offline();
  client.connected();
  expect(frame(outputs(client)[0])).toMatchObject({ type: 'hello', sessionId: SESSION, clientId: 'browser' });
  handle(client, frames[0] ?? '');
  const seq = submit(client, { type: 'create' }, NOON) as number;
  expect(outputs(client).some((output) => output.type === 'send')).toBe(false);
  client.commandsStored(seq);
  const sent = outputs(client).filter((output) => output.type === 'send');
  expect(sent[0]?.frame).toBe(`{"type":"submit","commands":[{"clientId":"browser","seq":${seq},"type":"create"}]}`);
});

test('commands that are stored together are sent together, in frames that are not too long', () => {
  const client = offline();
  submit(client, { type: 'create' }, NOON);
  for (let count = 0; count < 40; count += 1) submit(client, { type: 'setMetadata', metadata: { count } });
  for (const big of ['a', 'b', 'c', 'd']) submit(client, { type: 'setMetadata', metadata: { text: big.repeat(9000) } });
  client.connected();
  handle(client, frames[0] ?? '');
  client.takeOutputs();
  client.commandsStored(45);
  const sent = outputs(client).filter(({ type }) => type === 'send');
  expect(sent.map((output) => frame(output).commands?.length)).toEqual([32, 11, 2]);
  expect(sent.flatMap((output) => frame(output).commands?.map(({ seq }) => seq))).toEqual(Array.from({ length: 45 }, (_, index) => index + 1));
});

test('which trace a command is part of is stored with it, and sent beside it', () => {
  const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
  const issued = offline();
  submit(issued, { type: 'create' });
  issued.submit(JSON.stringify({ type: 'setMetadata', metadata: {} }), NOON, traceparent);
  issued.takeOutputs();
  // The page is loaded again.
  const client = offline(writes(issued) as [string, string][]);
  client.connected();
  handle(client, frames[0] ?? '');
  const sent = outputs(client).filter(({ type }) => type === 'send');
  const submitted = sent.map((output) => JSON.parse(output.frame ?? '') as { type: string }).filter(({ type }) => type === 'submit');
  expect(submitted).toMatchObject([{ commands: [{ type: 'create' }, { type: 'setMetadata' }], traceparents: [null, traceparent] }]);
});

test('every frame of a server can be read, and records are stored as they came', () => {
  for (const text of frames) {
    const client = offline();
    client.connected();
    handle(client, text);
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
  handle(client, { type: 'events', epoch: 9, records: [record] });
  const applied = outputs(client);
  expect(applied.find((output) => output.type === 'applied')?.record).toEqual(record);
  expect(writes(client)).toEqual([]);
  // What may still turn out not to have happened is not stored.
  handle(client, { type: 'durable', version: 1 });
  client.takeOutputs();
  const [key, sealed] = writes(client)[0] ?? [];
  expect(key).toBe(`${SESSION}/record/000000000001`);
  expect(sealed?.endsWith(JSON.stringify(record))).toBe(true);
});

test('records of a newer version are left alone', () => {
  const client = offline([[`${SESSION}/base`, '2:{"whatever":"it is"}']]);
  expect(client.isStorageNewer()).toBe(true);
  expect(JSON.parse(client.takeDamaged())).toEqual([]);
});

test('a server that has forgotten a client is told where its commands begin', () => {
  const client = offline();
  submit(client, { type: 'create' }, NOON);
  client.connected();
  submit(client, { type: 'setEmail', email: 'ada@example.com' }, NOON);
  client.commandsStored(2);
  const welcome = { type: 'welcome', protocol: 1, sessionId: SESSION, epoch: 0, lastSeq: 0, serverTime: new Date(NOON).toISOString() };
  handle(client, { ...welcome, version: 0, durableVersion: 0 });
  handle(client, { type: 'accepted', clientId: 'browser', seq: 1, version: 1 });
  handle(client, { type: 'durable', version: 1 });
  client.takeOutputs();

  // The server expects a number that has left the outbox, and says in a new welcome that it has lost it.
  handle(client, { type: 'gap', clientId: 'browser', expected: 1 });
  expect(outputs(client).some((output) => frame(output).type === 'hello')).toBe(true);
  handle(client, { ...welcome, version: 1, durableVersion: 1 });
  handle(client, { type: 'gap', clientId: 'browser', expected: 1 });
  const sent = outputs(client).filter((output) => output.type === 'send').map(frame);
  expect(sent.at(-1)?.commands).toEqual([
    { clientId: 'browser', seq: 2, first: true, type: 'setEmail', email: 'ada@example.com' },
  ]);
});

test('a tab that follows is answered by the one that leads, in the frames of the protocol', () => {
  const leader = offline();
  submit(leader, { type: 'create' }, NOON);
  leader.commandsStored(1);
  leader.takeOutputs();
  const follower = Client.open(SESSION, 'second', '[]')!;
  follower.setFunnel(JSON.stringify(funnel), 'hash');
  follower.follow();
  follower.connected();
  const hello = outputs(follower).find((output) => output.type === 'send')?.frame ?? '';
  expect(leader.greeted(hello)).toBe(true);
  const answers = outputs(leader);
  expect(answers.map(({ type }) => type)).toEqual(['announce', 'relay']);
  for (const answer of answers) {
    if (answer.type === 'announce') expect(follower.observe(answer.clientId!, answer.commands!, false)).toBe(true);
    else for (const frame of answer.frames ?? []) handle(follower, frame);
  }
  // It shows what the other tab has done, before any server has heard of it.
  expect(patch(follower)).toMatchObject({ id: SESSION, version: 1 });
  expect(follower.isLive()).toBe(true);
  // What it does itself is announced once it is stored, and sent by the leader.
  const seq = submit(follower, { type: 'setEmail', email: 'ada@example.com' }, NOON + 1) as number;
  follower.commandsStored(seq);
  const announced = outputs(follower).find(({ type }) => type === 'announce');
  expect(leader.observe('second', announced?.commands ?? '', true)).toBe(true);
  expect(patch(leader)).toMatchObject({ email: 'ada@example.com' });
});
