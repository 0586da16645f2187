import type { paths } from '../../generated/openapi.js';
import { errorOf, ThroughlineError } from './error.js';
import { durationMs, Limit, orAborted, pause } from './limit.js';
import { type Answered, type Send, standardTransport, type Transport } from './transport.js';
import type { CallOptions } from './types.js';

/** How the server is reached. */
export interface ServerOptions {
  /** The server's address, such as `https://checkout.shop.example`. */
  url: string;
  /** A service key with the scopes for what is called. Keep it on the server. */
  serviceKey: string;
  /** How long a call may take with all its tries, in milliseconds; 30 s where nothing is said. */
  timeoutMs?: number;
  /** How long one try may take; 12 s where nothing is said, a little longer than the server gives itself. */
  tryTimeoutMs?: number;
  /** How often a call is tried again at most; 3 times where nothing is said. */
  retries?: number;
  /**
   * Sends the requests: through a proxy, say, or with a pool of connections of its own. Where nothing is said, Node.js' HTTP client does,
   * in other runtimes, and for what only reads in Next.js, `fetch`.
   */
  fetch?: Send;
}

type Method = 'get' | 'post' | 'put' | 'patch' | 'delete';

/** The paths that know a method. */
type Path<M extends Method> = {
  [P in keyof paths]: paths[P][M] extends { responses: unknown } ? P : never;
}[keyof paths];

/** What a request consists of, beside its path. */
type Parts<O> = (O extends { parameters: infer All } ? Omit<All, 'cookie'> : unknown) &
  (O extends { requestBody: { content: { 'application/json': infer Body } } } ? { body: Body } : unknown);

/** What is answered where all is well. */
type Answer<O> = O extends { responses: { 200: { content: { 'application/json': infer Body } } } }
  ? Body
  : O extends { responses: { 201: { content: { 'application/json': infer Body } } } }
    ? Body
    : undefined;

type Value = string | number | boolean | null | undefined;

/** `Parts` of any route. */
interface AnyParts {
  path?: Record<string, Value>;
  query?: Record<string, Value | readonly Value[]>;
  header?: Record<string, Value>;
  body?: unknown;
}

const BACKOFF_MS = 100;
const LONGEST_BACKOFF_MS = 5_000;

/** What reads, though it is a POST. */
const READING: ReadonlySet<string> = new Set([
  '/v1/sessions/batch/get',
  '/v1/sessions/{id}/validate',
  '/v1/tokens/introspect',
  '/v1/privacy/export',
] satisfies Path<'post'>[]);

/** The statuses of what may be otherwise a moment later; 409 as well, where the first of two equal requests still runs. */
const PASSING = new Set([429, 502, 503, 504]);

/**
 * Requests to the server, typed by its description. All that are made here may be sent twice: they read, they do the same again, or they
 * have an idempotency key. What is none of that is told to be tried no second time.
 */
export class Http {
  readonly #url: string;
  readonly #authorization: string;
  readonly #timeoutMs: number;
  readonly #tryTimeoutMs: number;
  readonly #retries: number;
  readonly #transport: Transport;

  constructor({ url, serviceKey, timeoutMs = 30_000, tryTimeoutMs = 12_000, retries = 3, fetch }: ServerOptions) {
    if (!isAddress(url)) throw new TypeError('`url` has to be the address of a Throughline server, with https:// and without a name or password');
    // A header with such a key would be refused by an error that shows it.
    if (!/^[!-~]+$/.test(serviceKey ?? '')) throw new TypeError('`serviceKey` is missing, or has a space or line feed in it');
    this.#url = url.replace(/\/+$/, '');
    this.#authorization = `Bearer ${serviceKey}`;
    this.#timeoutMs = durationMs('timeoutMs', timeoutMs);
    this.#tryTimeoutMs = durationMs('tryTimeoutMs', tryTimeoutMs);
    this.#retries = retries;
    this.#transport = fetch ? { change: fetch, read: fetch } : standardTransport();
  }

  /** Asks until there is an answer that stays; an error where that is none of success. */
  async ask<M extends Method, P extends Path<M>>(
    method: M,
    path: P,
    parts: Parts<paths[P][M]>,
    { signal, timeoutMs: givenMs = this.#timeoutMs, retries = this.#retries }: CallOptions & { retries?: number },
  ): Promise<Answer<paths[P][M]>> {
    signal?.throwIfAborted();
    const timeoutMs = durationMs('timeoutMs', givenMs);
    const address = this.#url + filled(path, parts as AnyParts);
    const init = this.#request(method, parts as AnyParts);
    const { change, read } = this.#transport;
    const send = method === 'get' || READING.has(path) ? read : change;
    const endsAt = performance.now() + timeoutMs;
    let failure: unknown;
    for (let attempt = 0; ; attempt++) {
      const leftMs = endsAt - performance.now();
      const isLast = leftMs <= this.#tryTimeoutMs;
      const limit = new Limit(isLast ? leftMs : this.#tryTimeoutMs, signal);
      try {
        return (await orAborted(answerOf(send, address, { ...init, signal: limit.signal }), limit.signal)) as Answer<paths[P][M]>;
      } catch (error) {
        // Not the error of `fetch`, which some runtimes have their own of.
        if (signal?.aborted) throw signal.reason;
        // Next.js' word to itself that this page can't be made beforehand.
        if (typeof (error as { digest?: unknown } | undefined)?.digest === 'string') throw error;
        if (isLast && limit.isOver) {
          const detail = `the server did not answer within ${timeoutMs} ms; what was asked for may be done all the same`;
          throw new ThroughlineError(detail, { code: 'timedOut', mendableBy: 'retry' }, { cause: failure });
        }
        failure = error instanceof ThroughlineError ? error : this.#lost(error, limit);
      } finally {
        limit.end();
      }
      const waitMs = attempt < retries && passes(failure) ? waitBefore(attempt, failure) : Infinity;
      if (performance.now() + waitMs >= endsAt) throw failure;
      await pause(waitMs, signal);
    }
  }

  #request(method: Method, { header, body }: AnyParts): RequestInit {
    const headers: Record<string, string> = { authorization: this.#authorization, accept: 'application/json', 'user-agent': 'throughline' };
    if (body !== undefined) headers['content-type'] = 'application/json';
    for (const [name, value] of Object.entries(header ?? {})) if (value != null) headers[name] = String(value);
    return {
      method: method.toUpperCase(),
      headers,
      ...(body !== undefined && { body: JSON.stringify(body) }),
      // A POST that follows a redirection becomes a GET.
      redirect: 'manual',
      // Next.js would keep what is read. Workers of before 2024-11 throw where it is named.
      ...('cache' in Request.prototype && { cache: 'no-store' }),
    };
  }

  #lost(cause: unknown, { isOver }: Limit): ThroughlineError {
    const [code, what] = isOver
      ? (['timedOut', `did not answer within ${this.#tryTimeoutMs} ms`] as const)
      : (['unreachable', 'could not be reached, or the connection was lost'] as const);
    return new ThroughlineError(`the server at ${this.#url} ${what}`, { code, mendableBy: 'retry' }, { cause: withoutBytes(cause) });
  }
}

function isAddress(url: string): boolean {
  try {
    const { protocol, username, password } = new URL(url);
    return /^https?:$/.test(protocol) && /^https?:\/\/[^/]/.test(url) && username === '' && password === '';
  } catch {
    return false;
  }
}

async function answerOf(send: Send, address: string, init: RequestInit): Promise<unknown> {
  const response = await send(address, init);
  const text = await response.text();
  if (!response.ok) throw errorOf(response, text);
  return text === '' ? undefined : parsed(response, text);
}

/** Where an answer is no HTTP, Node.js puts its bytes into the error: something may have sent back what it was sent. */
function withoutBytes(error: unknown): unknown {
  for (let [at, depth] = [error, 0]; typeof at === 'object' && at !== null && depth < 8; at = (at as Error).cause, depth++) {
    for (const bytes of ['rawPacket', 'data']) Reflect.deleteProperty(at, bytes);
  }
  return error;
}

function parsed(response: Answered, text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    throw errorOf(response, '');
  }
}

function passes(failure: unknown): boolean {
  const { code, status } = failure as ThroughlineError;
  if (status === undefined) return code === 'unreachable' || code === 'timedOut';
  return PASSING.has(status) || code === 'idempotencyKeyInProgress';
}

/** Any time up to a limit that doubles (full jitter), so that those who failed together don't come back together; after what the server asks for. */
function waitBefore(attempt: number, failure: unknown): number {
  const jitterMs = Math.random() * Math.min(BACKOFF_MS * 2 ** attempt, LONGEST_BACKOFF_MS);
  return ((failure as ThroughlineError).retryAfterMs ?? 0) + jitterMs;
}

/** The path with its parameters and the query. */
function filled(template: string, { path, query }: AnyParts): string {
  const filled = template.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(String(path![name])));
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    for (const one of Array.isArray(value) ? (value as Value[]) : [value as Value]) if (one != null) search.append(name, String(one));
  }
  const text = search.toString();
  return text ? `${filled}?${text}` : filled;
}
