/** One place in which two versions of a session differ. */
export interface Change {
  /** The way to it: `customer.shipping.zipCode`, `upsells.0.state`. */
  readonly path: string;
  readonly before: unknown;
  readonly after: unknown;
}

/** What nearly every version changes: it comes last. */
const BOOKKEEPING = new Set(['updatedAt', 'lastAccessedAt']);

/** In what `after` differs from `before`, their versions aside; with nothing before it, all that it has. */
export function changes(before: unknown, after: unknown): Change[] {
  const found: Change[] = [];
  compare('', before, after, found);
  const rank = ({ path }: Change) => Number(BOOKKEEPING.has(path));
  return found.filter(({ path }) => path !== 'version').sort((one, other) => rank(one) - rank(other));
}

function compare(path: string, before: unknown, after: unknown, found: Change[]): void {
  if (before === after) return;
  if (isInner(after) && (isInner(before) || isNothing(before))) {
    const [one, other] = [(before ?? {}) as Record<string, unknown>, after as Record<string, unknown>];
    const names = new Set([...Object.keys(one), ...Object.keys(other)]);
    for (const name of names) compare(path === '' ? name : `${path}.${name}`, one[name], other[name], found);
  } else if (JSON.stringify(before) !== JSON.stringify(after) && !(isNothing(before) && isNothing(after))) {
    found.push({ path, before, after });
  }
}

function isInner(value: unknown): boolean {
  return typeof value === 'object' && value !== null && !(value instanceof Date);
}

function isNothing(value: unknown): boolean {
  return value === undefined || value === null;
}

/** A value in few characters; none where there is no value. */
export function brief(value: unknown): string {
  if (isNothing(value)) return '';
  const text = value instanceof Date ? value.toISOString() : typeof value === 'string' ? value : JSON.stringify(value);
  return text.length > 80 ? `${text.slice(0, 79)}…` : text;
}
