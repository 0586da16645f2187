import { newClaimSecret, newSessionId } from '../generated/throughline.js';
import type { Funnel } from '../generated/types.js';
import { findLocalStorageCore, loadCore } from './core.js';
import { type Credentials, saveCredentials } from './credentials.js';
import type { KnownFunnel } from './engine.js';
import { exchangeHandoff, handoffCodeIn, removeHandoffCode } from './handoff.js';
import { plainCopy, valueIn } from './plain.js';
import { type Rejection, SessionError } from './rejection.js';
import { serverAddress } from './server-address.js';
import { CheckoutSession, type NewSession } from './session.js';
import { Storage } from './storage/ladder.js';
import type { StorageRung } from './storage/store.js';
import { exclusively } from './tabs.js';
import { legacySession, takeOverLegacySessions } from './take-over.js';
import { timeLimit } from './time-limit.js';
import type { Trace } from './trace.js';
import type { FindWasm, WasmSource } from './wasm-source.js';

export interface OpenOptions {
  /** The server, such as `https://checkout.shop.example`; relative addresses are the page's own. */
  url: string;
  /** The session to open. Without it, this browser's latest one is continued, or a new one begun. */
  sessionId?: string;
  /** The session's token, where a back end created it. */
  token?: string;
  /**
   * Goes on with the session of another device: its link ({@link CheckoutSession.handoff}) or the code in it. Give the page's
   * own address, `location.href`: one without a code is nothing special, and a code that was used is removed from it.
   */
  handoff?: string | URL;
  /**
   * Asked before a link is followed. Whoever opens one goes on with somebody's session, which may be a stranger's who sent
   * it: let the buyer say that it is their own. Where the answer is not `true`, it is as if there were no link.
   */
  confirmHandoff?: () => boolean | Promise<boolean>;
  /**
   * Where this browser keeps what lets it into the session: in its storage, encrypted, or in a cookie that no script can read
   * (`HttpOnly`). For the cookie the server has to be of the page's own site, such as `checkout.shop.example` for
   * `www.shop.example`, and reached over HTTPS; a session that is begun without a connection gets it with the first one.
   * `'storage'` unless given; a session that was moved into a cookie stays there.
   */
  credentials?: 'storage' | 'cookie';
  /** Begins a new session, also where there is one to continue. */
  fresh?: boolean;
  /** The funnel of a new session: its id, or its whole definition. */
  funnel?: string | Funnel;
  /** What a new session begins with. */
  create?: NewSession;
  /** The first rung of the storage to try. */
  storage?: StorageRung;
  /** The file `throughline/throughline_bg.wasm`, where the one beside this module can't be loaded. */
  wasm?: WasmSource;
  /** The file `throughline/local_storage_bg.wasm` likewise; few browsers need it. */
  localStorageWasm?: WasmSource;
  /**
   * Which traces the commands are part of: a function that gives the W3C `traceparent` of what goes on in the page just now, or
   * `true` for a trace of its own for each command ({@link Receipt.traceId}). The server's spans continue it; it is kept with
   * the command until that is durable.
   */
  trace?: Trace;
  /** How long to wait for a server where this browser has nothing of the session, in milliseconds. */
  timeoutMs?: number;
  /** Gives up opening; the promise is rejected with the signal's reason. */
  signal?: AbortSignal;
}

const DEFAULT_FUNNEL = 'default';
const DEFAULT_TIMEOUT_MS = 10_000;

/** Opens a checkout session, as every entry of this package does with the core that it brings along. */
export async function open(options: OpenOptions, ownWasm: FindWasm): Promise<CheckoutSession> {
  options.signal?.throwIfAborted();
  await load(options, ownWasm);
  const code = options.handoff === undefined ? undefined : handoffCodeIn(options.handoff);
  options.signal?.throwIfAborted();
  if (code === undefined) return goOn(options);
  const isWanted = options.confirmHandoff === undefined || (await options.confirmHandoff());
  options.signal?.throwIfAborted();
  if (isWanted === true) return openHandedOff(options, code);
  removeHandoffCode();
  return goOn(options);
}

async function goOn(options: OpenOptions, claim?: string): Promise<CheckoutSession> {
  const storage = await Storage.open(options.storage);
  try {
    const { session, isNew } = await exclusively(storage.isShared, 'open', () => openIn(storage, options, claim));
    if (!isNew) {
      // Other tabs need not wait while this one waits for the server.
      if (!session.snapshotOrUndefined) await firstNews(session, options);
      if (!session.engine.isErased) await rememberCurrent(storage, session.id);
    }
    // The rest of the legacy sessions can follow while the buyer goes on with this one.
    void takeOverLegacySessions(options.url, options.storage, (id) => knownFunnel(storage, options.url, id));
    return session;
  } catch (error) {
    storage.close();
    throw error;
  }
}

function load({ wasm, localStorageWasm }: OpenOptions, ownWasm: FindWasm): Promise<void> {
  findLocalStorageCore(localStorageWasm);
  return loadCore(wasm === undefined ? ownWasm : () => wasm);
}

/** Which secret was offered with a code, so that it is the same when the answer was lost and the page tries again. */
const offeredWith = new Map<string, string>();

async function openHandedOff(options: OpenOptions, code: string): Promise<CheckoutSession> {
  const offered = offeredWith.get(code) ?? newClaimSecret();
  offeredWith.set(code, offered);
  const { sessionId, token } = await exchangeHandoff(options.url, code, offered, options.signal).catch((error: unknown) => {
    if (error instanceof SessionError && error.code === 'handoffRefused') {
      offeredWith.delete(code);
      removeHandoffCode();
    }
    throw error;
  });
  offeredWith.delete(code);
  removeHandoffCode();
  // The code is used up: also where the server is not reached any more, this browser goes on with the session next time.
  const storage = await Storage.open(options.storage);
  const kept = valueIn<Credentials>(await storage.get(`${sessionId}/credentials`));
  // Where this browser began the session itself, it has a claim that lasts longer.
  const own = kept?.isLent ? undefined : kept?.claim;
  const claim = own ?? offered;
  const place = kept?.isInCookie ? { isInCookie: true } : placeOf(options);
  await saveCredentials(storage, sessionId, { token, claim, ...(own === undefined && { isLent: true }), ...place });
  await rememberCurrent(storage, sessionId);
  storage.close();
  return goOn({ ...options, sessionId, token }, claim);
}

async function openIn(
  storage: Storage,
  options: OpenOptions,
  claim?: string,
): Promise<{ session: CheckoutSession; isNew: boolean }> {
  const { url, token, signal } = options;
  signal?.throwIfAborted();
  const wanted = options.sessionId ?? (options.fresh ? undefined : await currentSession(storage));
  if (wanted === undefined) return { session: await createSession(storage, options), isNew: true };

  const legacy = await legacySession(wanted);
  const isHere = (await storage.load(`${wanted}/`)).entries.length > 0;
  const proof = token ? { token, ...(claim !== undefined && { claim }) } : legacy && !isHere ? { claim: newClaimSecret() } : {};
  const session = await CheckoutSession.open(url, storage, wanted, { ...proof, ...placeOf(options) });
  session.trace = options.trace;
  if (!hasFunnel(session)) {
    const funnelId = typeof options.funnel === 'string' ? options.funnel : DEFAULT_FUNNEL;
    const funnel = await knownFunnel(storage, url, funnelId, signal).catch(() => undefined);
    signal?.throwIfAborted();
    if (funnel) session.engine.useFunnel(funnel);
  }
  session.connect();
  if (legacy && !isHere) session.issue(legacy);
  return { session, isNew: false };
}

async function createSession(storage: Storage, options: OpenOptions): Promise<CheckoutSession> {
  const funnel = await chosenFunnel(storage, options);
  options.signal?.throwIfAborted();
  const { session, rejection } = beginSession(storage, options, funnel);
  if (rejection) {
    await session.close();
    throw rejection;
  }
  session.connect();
  // Who finds it as the latest has to find its claim secret as well: another tab, or this one when it is loaded again.
  await session.engine.written();
  await rememberCurrent(storage, session.id);
  return session;
}

/** @internal */
export interface Begun {
  session: CheckoutSession;
  /** Why it can't be created, where the rules forbid that. */
  rejection: Rejection | undefined;
}

/** Nothing here waits: the session is there when this returns. */
function beginSession(storage: Storage, options: OpenOptions, known: KnownFunnel): Begun {
  const { url, create } = options;
  const credentials = { claim: newClaimSecret(), ...placeOf(options) };
  const session = CheckoutSession.begin(url, storage, newSessionId(Date.now()), credentials);
  session.trace = options.trace;
  session.engine.pinFunnel(known);
  const { id, version } = known.funnel;
  let rejection: Rejection | undefined;
  const stop = session.on('rejected', (reason) => (rejection = reason));
  session.issue({ type: 'create', ...create, funnel: { id, version } });
  stop();
  return { session, rejection };
}

function placeOf({ credentials }: OpenOptions): Credentials {
  return credentials === 'cookie' ? { isInCookie: true } : {};
}

/** @internal What begins one session without waiting, for `throughline/legacy`. */
export interface Starter {
  /** This browser's latest session. */
  latest: string | undefined;
  funnel: Funnel;
  begin(create: NewSession): Begun;
}

/** The sessions that become this browser's latest as soon as they are stored, as long as they stand here. */
const remembering = new WeakMap<CheckoutSession, Promise<void>>();

/** @internal */
export async function prepare(options: OpenOptions, ownWasm: FindWasm): Promise<Starter> {
  await load(options, ownWasm);
  const storage = await Storage.open(options.storage);
  const known = await chosenFunnel(storage, options);
  return {
    latest: await currentSession(storage),
    funnel: known.funnel,
    begin(create) {
      const begun = beginSession(storage, { ...options, create }, known);
      if (!begun.rejection) {
        begun.session.connect();
        const { session } = begun;
        const stored = session.engine.written();
        remembering.set(session, stored.then(() => (remembering.has(session) ? rememberCurrent(storage, session.id) : undefined)));
      }
      return begun;
    },
  };
}

/** @internal This session is not the one that this browser goes on with, also where it has only just begun. */
export async function forgetSession(session: CheckoutSession, first?: StorageRung): Promise<void> {
  const underWay = remembering.get(session);
  remembering.delete(session);
  await underWay;
  const storage = await Storage.open(first);
  await storage.write([], ['current'], ['current', session.id]).catch(() => undefined);
  storage.close();
}

/** The funnel of a new session. */
function chosenFunnel(storage: Storage, { url, funnel = DEFAULT_FUNNEL, signal }: OpenOptions): Promise<KnownFunnel> | KnownFunnel {
  return typeof funnel === 'object' ? { funnel: plainCopy(funnel), hash: '' } : knownFunnel(storage, url, funnel, signal);
}

/** Waits until the server has sent the session. */
function firstNews(session: CheckoutSession, { timeoutMs = DEFAULT_TIMEOUT_MS, signal }: OpenOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => end(signal?.reason ?? new DOMException('opening was given up', 'AbortError'));
    const end = (error?: unknown) => {
      clearTimeout(timer);
      stop();
      signal?.removeEventListener('abort', abort);
      if (!error) return resolve();
      void session.close();
      reject(error);
    };
    const timer = setTimeout(() => {
      const { refusal } = session.engine;
      const why = refusal === undefined ? 'the server did not answer' : `the server did not let it in (${refusal})`;
      end(new SessionError('unreachable', `${why}, and this browser has nothing of the session`));
    }, timeoutMs);
    const check = () => {
      if (session.error) end(session.error);
      else if (session.snapshotOrUndefined && hasFunnel(session)) end();
    };
    const stop = session.subscribe(check);
    signal?.addEventListener('abort', abort);
    if (signal?.aborted) abort();
    else check();
  });
}

function hasFunnel(session: CheckoutSession): boolean {
  return session.engine.funnel !== undefined;
}

/** The funnel as the server has it now; where it can't be asked, as this browser knew it last. */
async function knownFunnel(storage: Storage, url: string, id: string, signal?: AbortSignal): Promise<KnownFunnel> {
  const key = `funnel/${id}`;
  let cause: unknown;
  const asked = await fetchFunnel(url, id, signal).catch((error: unknown) => void (cause = error));
  signal?.throwIfAborted();
  if (asked) {
    await storage.write([[key, JSON.stringify(asked)]]).catch(() => undefined);
    return asked;
  }
  const kept = valueIn<KnownFunnel>(await storage.get(key));
  if (kept !== undefined) return kept;
  throw new SessionError('unreachable', `the funnel '${id}' can't be loaded from the server, and is not known here`, { cause });
}

async function fetchFunnel(url: string, id: string, signal?: AbortSignal): Promise<KnownFunnel> {
  const response = await fetch(serverAddress(url, `v1/funnels/${encodeURIComponent(id)}`), {
    signal: timeLimit(5000, signal),
  });
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  const { funnel, hash } = (await response.json()) as KnownFunnel;
  return { funnel, hash };
}

async function currentSession(storage: Storage): Promise<string | undefined> {
  const id = await storage.get('current');
  // Without a token or a claim nobody can go on with it: it was erased, or the storage is damaged.
  return id !== undefined && (await storage.get(`${id}/credentials`)) !== undefined ? id : undefined;
}

async function rememberCurrent(storage: Storage, id: string): Promise<void> {
  await storage.write([['current', id]]).catch(() => undefined);
}
