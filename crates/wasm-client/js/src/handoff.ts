import { SessionError } from './rejection.js';
import { serverAddress } from './server-address.js';
import { timeLimit } from './time-limit.js';

/** With this, one other browser can go on with the session. A secret until it is used. */
export interface Handoff {
  /** A link to the page, with the code in the part that browsers don't send to servers. */
  readonly url: string;
  /** The code alone. */
  readonly code: string;
  /** Until when it can be used: 5 minutes from when it was asked for. */
  readonly expiresAt: Date;
}

const PARAMETER = 'throughline-handoff';

const LIMIT_MS = 10_000;

/** Asks the server for a code, and puts it into a link to this page. */
export async function askForHandoff(
  server: string,
  sessionId: string,
  token: string,
  page: string | URL,
  signal?: AbortSignal,
): Promise<Handoff> {
  const path = `v1/sessions/${encodeURIComponent(sessionId)}/handoff`;
  const { code, expiresAt } = await post<{ code: string; expiresAt: string }>(server, path, {}, signal, token);
  const url = new URL(page);
  url.hash = String(new URLSearchParams({ [PARAMETER]: code }));
  return Object.freeze({ url: url.href, code, expiresAt: new Date(expiresAt) });
}

/** Exchanges a code for the session's id and a token. */
export function exchangeHandoff(
  server: string,
  code: string,
  signal?: AbortSignal,
): Promise<{ sessionId: string; token: string }> {
  return post(server, 'v1/handoff', { code }, signal);
}

/** The code in a link, which may be relative to the page, or the code itself; nothing where the link has none. */
export function handoffCodeIn(given: string | URL): string | undefined {
  const text = String(given);
  if (/^[\w.-]+$/.test(text)) return text;
  return new URLSearchParams(text.slice(text.indexOf('#') + 1)).get(PARAMETER) ?? undefined;
}

/** Who loads the page again must not show a code again that was used or refused. */
export function removeHandoffCode(): void {
  if (typeof location === 'undefined' || !location.hash.includes(`${PARAMETER}=`)) return;
  const parameters = new URLSearchParams(location.hash.slice(1));
  parameters.delete(PARAMETER);
  const rest = String(parameters);
  history.replaceState(history.state, '', rest === '' ? location.pathname + location.search : `#${rest}`);
}

async function post<T>(server: string, path: string, body: unknown, signal?: AbortSignal, token?: string): Promise<T> {
  const response = await fetch(serverAddress(server, path), {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) },
    body: JSON.stringify(body),
    signal: timeLimit(LIMIT_MS, signal),
  }).catch((error: unknown) => {
    if (signal?.aborted) throw signal.reason;
    throw new SessionError('unreachable', `the server can't be asked for the other device: ${(error as Error).message}`);
  });
  const answer = (await response.json().catch(() => ({}))) as T & { detail?: string };
  if (response.ok) return answer;
  // Too much to do, or nothing done: a code is as good as before. And who asks for one may not be known any more.
  const isBusy = response.status === 429 || response.status >= 500;
  const code = isBusy ? 'unreachable' : token !== undefined && response.status === 401 ? 'unauthorized' : 'handoffRefused';
  throw new SessionError(code, answer.detail ?? `the server answered ${response.status}`);
}
