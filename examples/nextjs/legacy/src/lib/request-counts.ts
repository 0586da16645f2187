import { AsyncLocalStorage } from 'node:async_hooks';

interface Counts {
  queries: number;
  cookieReads: number;
}

const current = new AsyncLocalStorage<Counts>();

export function countQuery(): void {
  const counts = current.getStore();
  if (counts) counts.queries += 1;
}

export function countCookieRead(): void {
  const counts = current.getStore();
  if (counts) counts.cookieReads += 1;
}

/** With COUNT_QUERIES=1 each answer says in `x-counts` what the request took. */
export function counted<Args extends unknown[]>(
  handler: (...args: Args) => Promise<Response>,
): (...args: Args) => Promise<Response> {
  if (process.env.COUNT_QUERIES !== '1') return handler;
  return async (...args) => {
    const counts: Counts = { queries: 0, cookieReads: 0 };
    const response = await current.run(counts, () => handler(...args));
    response.headers.set('x-counts', `queries=${counts.queries}, cookie-reads=${counts.cookieReads}`);
    return response;
  };
}
