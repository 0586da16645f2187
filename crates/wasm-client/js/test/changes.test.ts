import { expect, test } from 'vitest';

import { brief, changes } from '../src/devtools/changes.js';

const at = (seconds: number) => new Date(seconds * 1000);

test('what differs is named by its way, bookkeeping last', () => {
  const before = { version: 1, updatedAt: at(1), email: null, customer: { firstName: 'Ada', shipping: {} }, upsells: [{ state: 'offered' }] };
  const after = { version: 2, updatedAt: at(2), email: 'ada@example.com', customer: { shipping: { state: 'CA' } }, upsells: [{ state: 'accepted' }] };
  expect(changes(before, after)).toEqual([
    { path: 'email', before: null, after: 'ada@example.com' },
    { path: 'customer.firstName', before: 'Ada', after: undefined },
    { path: 'customer.shipping.state', before: undefined, after: 'CA' },
    { path: 'upsells.0.state', before: 'offered', after: 'accepted' },
    { path: 'updatedAt', before: at(1), after: at(2) },
  ]);
});

test('the same is no change, whether it is the same object or not', () => {
  expect(changes({ at: at(1), list: [1], nothing: null }, { at: at(1), list: [1], nothing: undefined })).toEqual([]);
});

test('the first version is all that it has', () => {
  expect(changes(undefined, { email: 'a', claims: null, customer: { phone: '1' } }).map(({ path }) => path)).toEqual(['email', 'customer.phone']);
});

test('what becomes of an object that goes is one change', () => {
  expect(changes({ claims: { amount: 1 } }, { claims: null })).toEqual([{ path: 'claims', before: { amount: 1 }, after: null }]);
});

test.each([
  [null, ''], [undefined, ''], [0, '0'], [false, 'false'], ['a', 'a'], [at(0), '1970-01-01T00:00:00.000Z'], [{ a: 1 }, '{"a":1}'],
  ['x'.repeat(90), `${'x'.repeat(79)}…`],
])('in few characters %j is %s', (value, text) => {
  expect(brief(value)).toBe(text);
});
