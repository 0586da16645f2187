/** What the name of an entry begins with that is a patch itself; see `json/change.rs` in the core. */
const WITHIN = '>';

/** A snapshot with this patch of the core in it: frozen, and with all that did not change as it was. */
export function patched<T extends object>(base: T, patch: Readonly<Record<string, unknown>>): T {
  const next = (Array.isArray(base) ? [...base] : { ...base }) as Record<string, unknown>;
  for (const [key, value] of Object.entries(patch)) {
    if (key.startsWith(WITHIN)) {
      const name = key.slice(WITHIN.length);
      next[name] = patched(next[name] as object, value as Record<string, unknown>);
    } else next[key] = revive(key, value);
  }
  return Object.freeze(next) as T;
}

/**
 * Turns the points in time of a value of the core into `Date`s: by the rule of the model, they are what is named `…At`.
 * Metadata is the shop's own and stays as it is, frozen as well: nobody may change what the core believes it to be.
 */
function revive(name: string, value: unknown): unknown {
  if (typeof value === 'number') return name.endsWith('At') ? new Date(value) : value;
  if (value === null || typeof value !== 'object') return value;
  if (name === 'metadata') return frozen(value);
  const revived: Record<string, unknown> | unknown[] = Array.isArray(value) ? [] : {};
  for (const [key, inner] of Object.entries(value)) (revived as Record<string, unknown>)[key] = revive(key, inner);
  return Object.freeze(revived);
}

function frozen(value: object): object {
  for (const inner of Object.values(value)) if (inner !== null && typeof inner === 'object') frozen(inner as object);
  return Object.freeze(value);
}
