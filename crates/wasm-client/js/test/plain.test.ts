import { expect, test } from 'vitest';

import { plainCopy } from '../src/plain.js';
import { Rejection } from '../src/rejection.js';

function refusal(metadata: unknown): string {
  try {
    plainCopy({ type: 'setMetadata', metadata });
  } catch (reason) {
    expect(reason).toBeInstanceOf(Rejection);
    expect((reason as Rejection).code).toBe('malformedCommand');
    return (reason as Rejection).message;
  }
  return 'accepted';
}

test('what JSON can hold is copied as JSON.stringify would write it', () => {
  const shared = { same: 'twice' };
  const values = {
    text: 'ä"\\',
    number: -1.5e-7,
    nothing: null,
    flag: false,
    list: [1, undefined, () => 1, [2], , 3],
    at: new Date(0),
    gone: undefined,
    method() {},
    first: shared,
    second: shared,
    own: new (class { field = 1; })(),
    ...(JSON.parse('{"a":1}') as object),
  };
  const copy = plainCopy(values);
  expect(copy).toStrictEqual(JSON.parse(JSON.stringify(values)));
  expect(copy.first).not.toBe(shared);
  const odd = JSON.parse('{"__proto__":{"a":1}}') as object;
  expect(Object.keys(plainCopy(odd))).toEqual(['__proto__']);
  expect(Object.getPrototypeOf(plainCopy(odd))).toBe(Object.prototype);
});

test('what JSON cannot hold is refused with the place where it is', () => {
  expect(refusal({ a: { b: [1, Number.NaN] } })).toBe("metadata.a.b.1: is NaN, which JSON can't hold");
  expect(refusal({ a: -Infinity })).toBe("metadata.a: is -Infinity, which JSON can't hold");
  expect(refusal({ a: 1n })).toBe("metadata.a: is a bigint, which JSON can't hold");
  expect(refusal({ a: Symbol('s') })).toBe("metadata.a: is a symbol, which JSON can't hold");
  expect(refusal({ a: new Map([[1, 2]]) })).toBe("metadata.a: is a Map, which JSON can't hold");
  expect(refusal({ a: new Uint8Array(2) })).toBe("metadata.a: is a Uint8Array, which JSON can't hold");
});

test('what cannot be read is refused, and so is what has no end', () => {
  const thrower = { get a() { throw new Error('boom'); } };
  expect(refusal(thrower)).toBe("metadata.a: can't be read: boom");
  expect(refusal({ a: { toJSON() { throw new Error('no'); } } })).toBe("metadata.a: can't be read: no");
  expect(refusal(new Proxy({}, { ownKeys() { throw new Error('shut'); } }))).toBe("metadata: can't be read: shut");
  const circle: Record<string, unknown> = {};
  circle['x'] = { circle };
  expect(refusal(circle)).toBe('metadata.x.circle: holds itself');
  let deep: unknown = 1;
  for (let depth = 0; depth < 100; depth += 1) deep = [deep];
  expect(refusal(deep)).toContain('is nested more than 64 deep');
});
