import { readFile } from 'node:fs/promises';
import { beforeAll, expect, test, vi } from 'vitest';

import { Client } from '../generated/throughline.js';
import type { Event, SessionRecord } from '../generated/types.js';
import { loadCore } from '../src/core.js';
import { History } from '../src/devtools/history.js';
import { Replay } from '../src/replay.js';
import type { CheckoutSession } from '../src/session.js';

const SESSION = 'ws_mwor0dc0_0ez6uz7hcaq7bct63a1rip2iv';

beforeAll(() => loadCore(() => readFile(new URL('../generated/throughline_bg.wasm', import.meta.url))));

function record(version: number, event: object): SessionRecord {
  const at = new Date(Date.UTC(2026, 10, 20, 12, 0, version)).toISOString();
  return { version, at, by: 'browser', event: event as Event } as unknown as SessionRecord;
}

const created = () =>
  record(1, {
    type: 'created', id: SESSION, epoch: 9, funnel: { id: 'default', version: 1 }, currency: 'USD', step: 'checkout', source: 'client',
    expiresAt: '2026-11-21T12:00:00.000Z',
  });
const emailSet = (version: number, name = 'buyer') => record(version, { type: 'emailSet', email: `${name}${version}@example.com` });

/** What a history sees of a session of which these records are known. */
function sessionOf(records: SessionRecord[]): CheckoutSession {
  return {
    id: SESSION,
    records,
    get sync() {
      return { confirmedVersion: records.length, durableVersion: records.length, version: records.length, connection: 'offline' };
    },
    getSnapshot: () => ({ version: records.length, email: 'as it is now' }),
    replay: () => new Replay(SESSION),
  } as unknown as CheckoutSession;
}

test('each record is replayed once, however often the session changes', () => {
  const records = [created()];
  const history = new History(sessionOf(records), () => undefined);
  const handled = vi.spyOn(Client.prototype, 'handle');
  history.note();
  while (records.length < 50) {
    records.push(emailSet(records.length + 1));
    history.note();
    history.note();
  }
  expect(handled).toHaveBeenCalledTimes(50);
  expect(history.past).toBe('complete');
  expect(history.at(1)).toMatchObject({ version: 1, email: null });
  for (let version = 2; version <= 50; version += 1) {
    expect(history.at(version)).toMatchObject({ version, email: `buyer${version}@example.com` });
  }
  handled.mockRestore();
  history.close();
});

test('where another history has won, it is that one', () => {
  const records = [created(), emailSet(2), emailSet(3), emailSet(4)];
  const history = new History(sessionOf(records), () => undefined);
  history.note();
  expect(history.at(3)!.email).toBe('buyer3@example.com');
  records.splice(2, 2, emailSet(3, 'winner'), emailSet(4, 'winner'), emailSet(5, 'winner'));
  history.note();
  expect([1, 2, 3, 4, 5].map((version) => history.at(version)!.email)).toEqual([
    null, 'buyer2@example.com', 'winner3@example.com', 'winner4@example.com', 'winner5@example.com',
  ]);
  history.close();
});
