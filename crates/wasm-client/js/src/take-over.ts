import { newClaimSecret } from '../generated/throughline.js';
import type { Command } from '../generated/types.js';
import { loadLocalStorageCore } from './core.js';
import { Engine, type KnownFunnel } from './engine.js';
import { Rejection, type SessionError } from './rejection.js';
import { Storage } from './storage/ladder.js';
import type { StorageRung } from './storage/store.js';
import { exclusively } from './tabs.js';

/** What the legacy `FunnelSessionManager` left in localStorage. */
interface LegacyStorage {
  text: string;
  sessions: { id: string; command: Command }[];
  unreadable: { key: string; reason: string; text: string }[];
}

/** The key of the legacy storage. */
const LEGACY_KEY = 'webseed_funnel_sessions';

/** How many sessions are brought to the server at a time. */
const AT_A_TIME = 4;

/** The command that creates this session from the legacy storage, where it is there. */
export async function legacySession(id: string): Promise<Command | undefined> {
  return (await readStorage())?.sessions.find((session) => session.id === id)?.command;
}

/**
 * Brings every session of the legacy storage to the server, whatever its state; then, and only then, removes the
 * legacy key. What can't be read, or is refused by the rules, is kept in the new storage under `left-over/`, with the
 * reason. What fails otherwise is noted there too, but keeps the legacy key, so that the next page tries again.
 */
export async function takeOverLegacySessions(
  url: string,
  first: StorageRung | undefined,
  funnel: (id: string) => Promise<KnownFunnel>,
): Promise<void> {
  const legacy = await readStorage();
  if (!legacy) return;
  const storage = await Storage.open(first);
  try {
    // Without storage of our own nothing would be gained; the old one stays until there is.
    if (!storage.isShared) return;
    await exclusively(true, 'take-over', async () => {
      const known = await funnel('default');
      const todo = [...legacy.sessions];
      const leftOver = legacy.unreadable.map(({ key, reason, text }) => ({ key, reason, content: text as unknown }));
      const arrived: string[] = [];
      let isSettled = true;
      const worker = async () => {
        for (let next = todo.shift(); next; next = todo.shift()) {
          const failure = await bringOver(url, storage, next, known).catch((reason: unknown) => reason);
          if (failure === undefined) arrived.push(next.id);
          else leftOver.push({ key: next.id, reason: messageOf(failure), content: next.command });
          // The rules will not change their mind; whatever else it was, the next page may have better luck.
          if (failure !== undefined && !(failure instanceof Rejection)) isSettled = false;
        }
      };
      await Promise.all(Array.from({ length: AT_A_TIME }, worker));
      await storage.write(
        leftOver.map(({ key, ...rest }) => [leftOverKey(key), JSON.stringify(rest)]),
        arrived.map(leftOverKey),
      );
      // An old page may have written to it meanwhile; then it is taken over again, next time.
      if (isSettled) (await loadLocalStorageCore()).forgetLegacyStorage(legacy.text);
    });
  } catch {
    // Offline, or the page is going: the legacy storage is as it was, and the next page goes on.
  } finally {
    storage.close();
  }
}

function leftOverKey(key: string): string {
  return `left-over/${key}`;
}

function messageOf(failure: unknown): string {
  return failure instanceof Error ? failure.message : String(failure);
}

async function readStorage(): Promise<LegacyStorage | undefined> {
  // Some servers have a localStorage as well, but none of a buyer.
  if (typeof document === 'undefined') return undefined;
  try {
    // The core has the last word on what is there. It is loaded only where there is something.
    if (localStorage.getItem(LEGACY_KEY) === null) return undefined;
    const found = (await loadLocalStorageCore()).readLegacyStorage();
    return found === undefined ? undefined : (JSON.parse(found) as LegacyStorage);
  } catch {
    return undefined;
  }
}

/** Creates one session at the server, and waits until the database has it; the answer is why that can't be. */
async function bringOver(
  url: string,
  storage: Storage,
  { id, command }: LegacyStorage['sessions'][number],
  funnel: KnownFunnel,
): Promise<Rejection | SessionError | undefined> {
  const isBegun = (await storage.get(`${id}/credentials`)) !== undefined;
  let settled: (failure?: Rejection | SessionError) => void = () => {};
  const finished = new Promise<Rejection | SessionError | undefined>((resolve) => (settled = resolve));
  const check = () => {
    const { pending, durableVersion } = engine.progress;
    if (pending === 0 && durableVersion > 0) settled();
  };
  const engine: Engine = await Engine.open(url, id, storage, isBegun ? {} : { claim: newClaimSecret() }, {
    changed: () => queueMicrotask(check),
    confirmed: (_clientId, _seq, confirmation) => 'rejected' in confirmation && settled(confirmation.rejected),
    orphanRejected: () => undefined,
    applied: () => undefined,
    failed: (error) => settled(error),
    damaged: () => undefined,
    newerStorage: () => undefined,
  });
  try {
    engine.useFunnel(funnel);
    const { pending, version } = engine.progress;
    // Where it was begun before, a page has it open, or its command waits: either creates it, and here it is waited for.
    if (pending === 0 && version === 0 && !isBegun) engine.submit(command);
    engine.resume();
    return await finished;
  } finally {
    await engine.close();
  }
}
