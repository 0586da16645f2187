import { Rejection } from './rejection.js';

/** Deeper than every limit of the protocol. */
const MAX_DEPTH = 64;

/**
 * A copy that holds nothing but what JSON can hold. No code of the page runs later on while the core reads it, and
 * nothing that the page changes later on is changed here.
 *
 * As with `JSON.stringify`, `undefined` and functions are left out, and `toJSON` is heeded; but what would be lost or
 * changed silently is refused.
 *
 * @throws {Rejection} that names the place of what JSON can't hold, or that can't be read.
 */
export function plainCopy<T>(value: T): T {
  const path: string[] = [];
  const above: object[] = [];
  const copy = (given: unknown): unknown => {
    const value = hasToJson(given) ? given.toJSON(path.at(-1) ?? '') : given;
    if (typeof value === 'number' && !Number.isFinite(value)) throw `is ${value}, which JSON can't hold`;
    if (typeof value === 'bigint' || typeof value === 'symbol') throw `is a ${typeof value}, which JSON can't hold`;
    if (typeof value === 'function') return undefined;
    if (typeof value !== 'object' || value === null) return value;
    if (above.includes(value)) throw 'holds itself';
    if (above.length >= MAX_DEPTH) throw `is nested more than ${MAX_DEPTH} deep`;
    const kind = Object.prototype.toString.call(value).slice(8, -1);
    if (!Array.isArray(value) && kind !== 'Object') throw `is a ${kind}, which JSON can't hold`;
    above.push(value);
    const inner = (key: string): unknown => {
      path.push(key);
      const copied = copy((value as Record<string, unknown>)[key]);
      path.pop();
      return copied;
    };
    const copied = Array.isArray(value)
      ? Array.from({ length: value.length }, (_, index) => inner(`${index}`) ?? null)
      : Object.fromEntries(Object.keys(value).map((key) => [key, inner(key)]).filter(([, inner]) => inner !== undefined));
    above.pop();
    return copied;
  };
  try {
    return flatCopy(value) ?? (copy(value) as T);
  } catch (reason) {
    const what = typeof reason === 'string' ? reason : `can't be read: ${describe(reason)}`;
    const message = `${path.join('.') || 'the command'}: ${what}`;
    throw new Rejection({ code: 'malformedCommand', mendableBy: 'permanent', message });
  }
}

/**
 * A plain value as JSON text for the core and the server. Half a surrogate pair (text that was cut within a character)
 * becomes the replacement character: what is sent has to be Unicode.
 */
export function textOf(value: unknown): string {
  const text = JSON.stringify(value);
  if (!text.includes('\\ud')) return text;
  return text.replace(/\\(?:u(d[89a-f]..)|.)/g, (escape, half: unknown) => (half ? '\\ufffd' : escape));
}

/** What a text holds that was written as JSON; nothing where it is missing or damaged. */
export function valueIn<T>(text: string | undefined): T | undefined {
  try {
    return text === undefined ? undefined : (JSON.parse(text) as T);
  } catch {
    return undefined;
  }
}

/** A copy of an object of nothing but texts and whole numbers, as most commands are; nothing where it is something else. */
function flatCopy<T>(value: T): T | undefined {
  if (typeof value !== 'object' || value === null || Object.getPrototypeOf(value) !== Object.prototype) return undefined;
  const copied = { ...value };
  return Object.values(copied).every((inner) => typeof inner === 'string' || Number.isInteger(inner)) ? copied : undefined;
}

function hasToJson(value: unknown): value is { toJSON(key: string): unknown } {
  return typeof value === 'object' && value !== null && typeof (value as { toJSON?: unknown }).toJSON === 'function';
}

function describe(reason: unknown): string {
  try {
    return reason instanceof Error ? reason.message : String(reason);
  } catch {
    return 'reading it fails';
  }
}
