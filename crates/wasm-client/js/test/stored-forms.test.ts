// What each released version has stored in browsers is read by this one. With `UPDATE_GOLDEN=1`, what this version stores is
// written to `golden/<version>.json`; files of versions that were released are never written anew.
import { readdir, readFile, writeFile } from 'node:fs/promises';

import { beforeAll, expect, test } from 'vitest';

import manifest from '../package.json' with { type: 'json' };
import { Client } from '../generated/throughline.js';
import { loadCore } from '../src/core.js';
import { patched } from '../src/snapshot.js';

interface Golden {
  funnel: unknown;
  /** What lies in the storage, decrypted. */
  stored: [key: string, text: string][];
  /** What a page shows of it, without having heard of the server. */
  session: object;
  pending: { clientId: string; seq: number; type: string }[];
}

const SESSION = 'ws_mwor0dc0_0ez6uz7hcaq7bct63a1rip2iv';
const NOON = Date.UTC(2026, 10, 20, 12);
const folder = new URL('./golden/', import.meta.url);

beforeAll(async () => {
  const wasm = await readFile(new URL('../generated/throughline_bg.wasm', import.meta.url));
  await loadCore(() => wasm as BufferSource);
});

/** A client with everything that there is to be stored: a base, records after it, commands of two tabs. */
async function record(): Promise<Golden> {
  const verdicts = await readFile(new URL('../../../core/tests/golden/verdicts.json', import.meta.url), 'utf8');
  const { funnel } = { funnel: (JSON.parse(verdicts) as { funnels: Record<string, unknown> }).funnels['default'] };
  const storage = new Map<string, string>();
  const write = (client: Client): void => {
    client.takeOutputs();
    const [list, ...texts] = (client.takeWrites() ?? '[]').split('\u0001');
    for (const { changes } of JSON.parse(list!) as { changes: [string, number?][] }[]) {
      for (const [key, text] of changes) text === undefined ? storage.delete(key) : storage.set(key, texts[text]!);
    }
  };
  const open = (clientId: string): Client => {
    const client = Client.open(SESSION, clientId, JSON.stringify([...storage].sort(([a], [b]) => (a < b ? -1 : 1))))!;
    client.setFunnel(JSON.stringify(funnel), 'hash');
    return client;
  };
  const at = (seconds: number) => new Date(NOON + seconds * 1000).toISOString();
  const created = {
    type: 'created', id: SESSION, epoch: 9, funnel: { id: 'default', version: 1 }, currency: 'USD', step: 'checkout',
    source: 'client', expiresAt: at(86_400),
  };
  const records = [
    { version: 1, at: at(0), by: 'browser', origin: { clientId: 'first', seq: 1 }, event: created },
    { version: 2, at: at(1), by: 'browser', origin: { clientId: 'first', seq: 2 }, event: { type: 'emailSet', email: 'ada@example.com' } },
    { version: 3, at: at(2), by: 'service', event: { type: 'metadataSet', metadata: { campaign: 'autumn', weight: 0.5 } } },
  ];
  const first = open('first');
  first.connected();
  const welcome = { type: 'welcome', protocol: 1, sessionId: SESSION, epoch: 9, version: 0, durableVersion: 0, lastSeq: 0, serverTime: at(0), funnelHash: 'hash' };
  first.handle(JSON.stringify(welcome));
  first.handle(JSON.stringify({ type: 'events', epoch: 9, records: records.slice(0, 2) }));
  first.handle(JSON.stringify({ type: 'durable', version: 2 }));
  first.storeAgain();
  write(first);
  first.handle(JSON.stringify({ type: 'events', epoch: 9, records: records.slice(2) }));
  first.handle(JSON.stringify({ type: 'durable', version: 3 }));
  write(first);
  first.submit(JSON.stringify({ type: 'setItems', items: [{ id: 'fitspresso-3-pack', quantity: 1 }] }), NOON + 3000);
  write(first);
  const second = open('second');
  second.submit(JSON.stringify({ type: 'setCustomer', customer: { firstName: 'Ada', lastName: 'Lovelace' } }), NOON + 4000);
  write(second);
  const stored = [...storage].sort(([a], [b]) => (a < b ? -1 : 1));
  return { funnel, stored, ...read({ funnel, stored }) };
}

function read({ funnel, stored }: Pick<Golden, 'funnel' | 'stored'>): Pick<Golden, 'session' | 'pending'> {
  const client = Client.open(SESSION, 'later', JSON.stringify(stored))!;
  expect(client.isStorageNewer()).toBe(false);
  expect(JSON.parse(client.takeDamaged())).toEqual([]);
  expect(client.setFunnel(JSON.stringify(funnel), 'hash')).toBeUndefined();
  const [list] = client.takeOutputs()!.split('\u0001');
  const changed = (JSON.parse(list!) as { type: string; patch: Record<string, unknown> }[]).find(({ type }) => type === 'changed')!;
  const session = JSON.parse(JSON.stringify(patched({}, changed.patch))) as object;
  const pending = (JSON.parse(client.pendingCommands()) as Golden['pending']).map(({ clientId, seq, type }) => ({ clientId, seq, type }));
  return { session, pending };
}

test('what every version has stored is read, with nothing lost', async () => {
  if (process.env['UPDATE_GOLDEN'] !== undefined) {
    await writeFile(new URL(`${manifest.version}.json`, folder), `${JSON.stringify(await record(), null, 1)}\n`);
  }
  const files = await readdir(folder);
  expect(files).toContain(`${manifest.version}.json`);
  for (const file of files) {
    const golden = JSON.parse(await readFile(new URL(file, folder), 'utf8')) as Golden;
    const kinds = new Set(golden.stored.map(([key]) => key.split('/')[1]));
    expect([...kinds].sort(), file).toEqual(['base', 'command', 'record']);
    expect(read(golden), file).toEqual({ session: golden.session, pending: golden.pending });
  }
});
