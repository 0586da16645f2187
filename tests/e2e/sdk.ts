import { expect, type Page } from '@playwright/test';

import type * as throughline from 'throughline';

import type { ThroughlineServer } from './server.js';
import type { StaticSite } from './static-site.js';

export type { CheckoutSession, Command, Session, SessionRecord } from 'throughline';

/** A command that was refused, as the page was told. */
export interface Refusal {
  code: string;
  message: string;
  command: string;
}

declare global {
  interface Window {
    /** The session that `openSession` opened in this page. */
    session: throughline.CheckoutSession;
    refusals: Refusal[];
    failures: { code: string; message: string }[];
  }
  // So that functions for `page.evaluate` can be written as page code is.
  var session: throughline.CheckoutSession;
  var refusals: Refusal[];
}

/** Opens the empty page and in it a session, as a page with a plain module script does; the answer is the session's id. */
export async function openIn(
  page: Page,
  site: StaticSite,
  server: ThroughlineServer,
  options: Omit<throughline.OpenOptions, 'url'> = {},
): Promise<string> {
  await page.goto(site.url);
  return openHere(page, server, options);
}

/** Opens a session in the page as it is. */
export async function openHere(
  page: Page,
  server: ThroughlineServer,
  options: Omit<throughline.OpenOptions, 'url'> = {},
): Promise<string> {
  return page.evaluate(
    async ([address, options]) => {
      const { openSession } = (await import(address)) as typeof throughline;
      window.session = await openSession(options);
      window.refusals = [];
      window.failures = [];
      window.session.on('rejected', ({ code, message }, { type }) => refusals.push({ code, message, command: type }));
      window.session.on('failed', ({ code, message }) => window.failures.push({ code, message }));
      return window.session.id;
    },
    ['/throughline/index.js', { url: server.url, ...options }] as const,
  );
}

/** Waits until the page is connected and all it did is in the database. */
export async function settled(page: Page, timeout = 15_000): Promise<void> {
  await page.waitForFunction(() => session.sync.connection === 'online' && session.sync.pending === 0, undefined, {
    timeout,
    // Not with the frames that are drawn: a page in the background draws none.
    polling: 20,
  });
}

/** All records of the browser's own storage, as they lie there: what belongs to a session is encrypted. */
export async function records(page: Page): Promise<Record<string, string>> {
  return page.evaluate(async () => {
    const request = indexedDB.open('throughline');
    await new Promise((resolve, reject) => {
      request.onsuccess = resolve;
      request.onerror = () => reject(request.error);
    });
    const store = request.result.transaction('records').objectStore('records');
    const [keys, texts] = [store.getAllKeys(), store.getAll()];
    await new Promise((resolve, reject) => {
      texts.onsuccess = resolve;
      texts.onerror = () => reject(texts.error);
    });
    request.result.close();
    return Object.fromEntries(keys.result.map((key, index) => [String(key), String(texts.result[index])]));
  });
}

/** All records of the browser's own storage that its keys open, as a script of the page can read them. */
export async function readable(page: Page): Promise<Record<string, string>> {
  return page.evaluate(async () => {
    const request = indexedDB.open('throughline');
    await new Promise((resolve) => (request.onsuccess = resolve));
    const transaction = request.result.transaction(['records', 'keys']);
    const [records, keys] = [transaction.objectStore('records'), transaction.objectStore('keys')];
    const asked = [records.getAllKeys(), records.getAll(), keys.getAllKeys(), keys.getAll()] as const;
    await new Promise((resolve) => (transaction.oncomplete = resolve));
    request.result.close();
    const [names, texts, scopes, found] = asked.map(({ result }) => result as unknown[]);
    const keyOf = new Map(scopes!.map((scope, index) => [String(scope), found![index] as CryptoKey]));
    const opened = names!.map(async (value, index) => {
      const [name, text] = [String(value), String(texts![index])];
      const key = keyOf.get(name.split('/')[0]!);
      if (!key || name.endsWith('/leader')) return [name, text];
      const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
      const parameters = { name: 'AES-GCM', iv: bytes.slice(0, 12), additionalData: new TextEncoder().encode(name) };
      return [name, new TextDecoder().decode(await crypto.subtle.decrypt(parameters, key, bytes.slice(12)))];
    });
    return Object.fromEntries(await Promise.all(opened)) as Record<string, string>;
  });
}

/** Replaces a record of the browser's own storage. */
export async function overwrite(page: Page, key: string, text: string): Promise<void> {
  await page.evaluate(
    async ([key, text]) => {
      const request = indexedDB.open('throughline');
      await new Promise((resolve) => (request.onsuccess = resolve));
      const transaction = request.result.transaction('records', 'readwrite');
      transaction.objectStore('records').put(text, key);
      await new Promise((resolve) => (transaction.oncomplete = resolve));
      request.result.close();
    },
    [key, text] as const,
  );
}

/** Waits until the browser has stored each of these texts. */
export async function storedByBrowser(page: Page, ...texts: string[]): Promise<void> {
  const missing = async () => {
    const kept = Object.values(await readable(page));
    return texts.filter((text) => !kept.some((record) => record.includes(text)));
  };
  await expect.poll(missing, { intervals: [10] }).toEqual([]);
}

/** What lets the browser into a session, as it keeps it. */
export async function credentials(page: Page, id: string): Promise<{ token?: string; claim?: string }> {
  return JSON.parse((await readable(page))[`${id}/credentials`] ?? '{}') as { token?: string; claim?: string };
}

/** The session's token, once the browser has one. */
export async function tokenOf(page: Page, id: string): Promise<string> {
  await expect.poll(async () => (await credentials(page, id)).token).toBeDefined();
  return (await credentials(page, id)).token!;
}

/** The session as the page shows it, as JSON. */
export async function shown(page: Page): Promise<throughline.Session> {
  return page.evaluate(() => JSON.parse(JSON.stringify(session.getSnapshot())) as throughline.Session);
}

/** The session as a service principal reads it. */
export async function stored(server: ThroughlineServer, id: string): Promise<throughline.Session> {
  const answer = await server.request(`/v1/sessions/${id}`);
  if (!answer.ok) throw new Error(`reading session ${id} was answered ${answer.status}: ${await answer.text()}`);
  return (await answer.json()) as throughline.Session;
}

/** Everything that happened to a session, in its order. */
export async function journal(server: ThroughlineServer, id: string): Promise<throughline.SessionRecord[]> {
  const records: throughline.SessionRecord[] = [];
  for (let after: number | undefined = 0; after !== undefined; ) {
    const answer = await server.request(`/v1/sessions/${id}/events?after=${after}&limit=500`);
    if (!answer.ok) throw new Error(`reading the journal was answered ${answer.status}: ${await answer.text()}`);
    const part = (await answer.json()) as { records: throughline.SessionRecord[]; nextAfter?: number };
    records.push(...part.records);
    after = part.nextAfter;
  }
  return records;
}

/** The numbers of the commands in a journal, in its order, by the client that issued them. */
export function numbersByClient(records: readonly throughline.SessionRecord[]): Map<string, number[]> {
  const numbers = new Map<string, number[]>();
  records.forEach(({ origin }, index) => {
    if (!origin) return;
    const before = records[index - 1]?.origin;
    // One command may make several records; they stand together.
    if (before?.clientId === origin.clientId && before.seq === origin.seq) return;
    const known = numbers.get(origin.clientId) ?? [];
    known.push(origin.seq);
    numbers.set(origin.clientId, known);
  });
  return numbers;
}

/** What is wrong with the commands of a journal: numbers that are missing, repeated or out of order. */
export function disorder(records: readonly throughline.SessionRecord[]): string[] {
  const wrong: string[] = [];
  for (const [clientId, numbers] of numbersByClient(records)) {
    numbers.forEach((seq, index) => {
      if (seq !== index + 1) wrong.push(`${clientId}: command ${seq} where ${index + 1} was due`);
    });
  }
  records.forEach(({ version }, index) => {
    if (version !== index + 1) wrong.push(`version ${version} where ${index + 1} was due`);
  });
  return wrong;
}

/** Has a service principal issue a command. */
export async function asService(server: ThroughlineServer, id: string, command: throughline.Command): Promise<Response> {
  return server.request(`/v1/sessions/${id}/commands`, {
    method: 'POST',
    body: JSON.stringify({ commands: [{ clientId: `service-${crypto.randomUUID()}`, seq: 1, ...command }] }),
  });
}

/** Brings a session of this page to its first offers, paid. */
export async function payFor(page: Page, server: ThroughlineServer, id: string): Promise<void> {
  await page.evaluate(async () => {
    session.setEmail('ada@example.com');
    session.setCustomer({ firstName: 'Ada', lastName: 'Lovelace' });
    session.setItems([{ id: 'fitspresso-3-pack', quantity: 1 }]);
    await session.beginProcessing().durable;
  });
  const { amount } = await stored(server, id);
  const paid = await asService(server, id, { type: 'recordPayment', transactionId: 'tx-1', amount });
  expect(paid.status).toBe(200);
  await page.waitForFunction(() => session.getSnapshot().currentStep === 'upsell-1');
}
