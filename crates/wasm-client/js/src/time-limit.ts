/**
 * A signal that aborts with `signal`, or after this time with a `TimeoutError`: `AbortSignal.any`, which neither the edge
 * runtime of Next.js has nor Safari before 17.4.
 */
export function timeLimit(limitMs: number, signal?: AbortSignal): AbortSignal {
  const limit = AbortSignal.timeout(limitMs);
  if (!signal) return limit;
  const either = new AbortController();
  for (const source of [signal, limit]) {
    const abort = () => either.abort(source.reason);
    if (source.aborted) abort();
    else source.addEventListener('abort', abort, { signal: either.signal });
  }
  return either.signal;
}
