/**
 * Turns the points in time of a value that came as JSON into `Date`s: by the rule of the model, they are what is named
 * `…At` (or `at`). Metadata is the shop's own and stays as it is.
 */
export function revive(name: string, value: unknown): unknown {
  if (name === 'metadata') return value;
  if (typeof value === 'string') return name.endsWith('At') || name === 'at' ? new Date(value) : value;
  if (Array.isArray(value)) return Object.freeze(value.map((item) => revive('', item)));
  if (value === null || typeof value !== 'object') return value;
  const revived: Record<string, unknown> = {};
  for (const [key, inner] of Object.entries(value)) revived[key] = revive(key, inner);
  return Object.freeze(revived);
}
