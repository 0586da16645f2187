import { readFile } from 'node:fs/promises';
import { expect, test } from 'vitest';

import { toData } from '../../src/legacy/cookie-session.js';
import { changesOf, toNewSession, toRow, wrongSums } from '../../src/legacy/row.js';
import type { Session } from '../../src/server.js';

interface Shapes {
  session: Session;
  now: string;
  row: Record<string, unknown>;
  cookie: Record<string, unknown> | null;
}

const shapes = JSON.parse(await readFile(new URL('../../../../core/tests/golden/legacy-shapes.json', import.meta.url), 'utf8')) as Shapes[];

test("rows are those that the server's own core writes", () => {
  for (const { session, row } of shapes) {
    // Old code that has accepted an offer finds it accepted; who reads the table takes that for charged.
    const isCharged = (code: string) => session.upsells.some(({ offer, state }) => offer === code && state === 'charged');
    const written = toRow(session);
    expect({ ...written, upsells_accepted: written.upsells_accepted.filter(isCharged) }).toEqual(row);
  }
});

test("a cookie's data are those that the server's own core writes", () => {
  for (const { session, cookie } of shapes) {
    if (!cookie) continue;
    const { createdAt: _, expiresAt: __, ...claims } = cookie;
    expect(toData(session)).toMatchObject(claims);
  }
});

test('a row that comes back as it was asks for nothing', () => {
  for (const { session, now } of shapes) {
    const row = toRow(session);
    expect({ row, ...changesOf(session, row, Date.parse(now)) }).toEqual({ row, commands: [], forbidden: [] });
    expect(wrongSums(row.metadata, session)).toEqual([]);
  }
});

test('a row that is created anew has the buyer that it had', () => {
  // What is empty is not there.
  const filled = (value: object) => JSON.parse(JSON.stringify(value, (_, part: unknown) => (part === '' ? undefined : part))) as unknown;
  for (const { session } of shapes) {
    const { email, customer_info: customerInfo, products, metadata } = toRow(session);
    const { customer } = toNewSession({ email, customerInfo, products, metadata }, session.currency).session;
    expect(filled(customer ?? {})).toEqual(filled(session.customer));
  }
});
