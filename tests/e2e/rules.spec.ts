import type { Page } from '@playwright/test';

import { expect, test } from './fixtures.js';
import type { ThroughlineServer } from './server.js';
import { disorder, journal, openIn, settled, stored, tokenOf, type Command } from './sdk.js';
import { StaticSite } from './static-site.js';

/** What a conversation over a socket of the page's own came to. */
interface Conversation {
  opened: boolean;
  frames: Record<string, unknown>[];
  /** The close code, where the server closed it. */
  closed?: number;
}

/**
 * Speaks the protocol from within the page, without the package: says each of `frames` once the server has answered
 * the one before, and ends when the server closes it or `answers` frames of the type `until` have come.
 */
async function speak(
  page: Page,
  server: ThroughlineServer,
  frames: readonly (string | Record<string, unknown> | { bytes: number })[],
  until: { type: string; count: number } = { type: 'never', count: 1 },
): Promise<Conversation> {
  return page.evaluate(
    ([address, frames, until]) =>
      new Promise<Conversation>((resolve) => {
        const socket = new WebSocket(address, 'throughline.v1');
        const heard: Conversation = { opened: false, frames: [] };
        const timer = setTimeout(() => resolve(heard), 8000);
        const end = () => (clearTimeout(timer), resolve(heard));
        const say = (frame: (typeof frames)[number]) => {
          if (typeof frame === 'object' && 'bytes' in frame) socket.send(new Uint8Array(Number(frame.bytes)));
          else socket.send(typeof frame === 'string' ? frame : JSON.stringify(frame));
        };
        const rest = [...frames];
        socket.onopen = () => {
          heard.opened = true;
          say(rest.shift()!);
        };
        socket.onmessage = ({ data }) => {
          const frame = JSON.parse(String(data)) as Record<string, unknown>;
          heard.frames.push(frame);
          if (frame['type'] === 'welcome') while (rest.length > 0) say(rest.shift()!);
          if (heard.frames.filter(({ type }) => type === until.type).length === until.count) {
            socket.onclose = null;
            socket.close();
            end();
          }
        };
        socket.onclose = ({ code }) => {
          heard.closed = code;
          end();
        };
      }),
    [`${server.url.replace('http', 'ws')}/v1/sync`, frames, until] as const,
  );
}

const forger = 'forger';
const hello = (sessionId: string, token: string) => ({
  type: 'hello',
  protocol: 1,
  sessionId,
  clientId: forger,
  knownVersion: 0,
  token,
});
const submit = (seq: number, command: Record<string, unknown>) => ({
  type: 'submit',
  commands: [{ clientId: forger, seq, ...command }],
});

const forged: [what: string, command: Command, code: string, message: RegExp][] = [
  [
    'a price of its own',
    { type: 'setItems', items: [{ id: 'fitspresso-6-pack', quantity: 1, price: 1 }] },
    'priceNotAllowed',
    /price/,
  ],
  ['an unknown product', { type: 'setItems', items: [{ id: 'gold', quantity: 1 }] }, 'unknownProduct', /gold/],
  ['a step that was skipped', { type: 'goToStep', step: 'success' }, 'stepNotAllowed', /success can't be reached from checkout/],
  ['a payment', { type: 'recordPayment', transactionId: 'made-up', amount: 0 }, 'notPermitted', /recordPayment/],
  ['the confirmation of claims', { type: 'confirmClaims' }, 'notPermitted', /confirmClaims/],
  ['another total', { type: 'setAdjustments', discount: 17_000 }, 'notPermitted', /setAdjustments/],
];

test('what the rules forbid is refused in the page at once, with a sentence, and nothing is queued', async ({
  page,
  site,
  server,
}) => {
  const id = await openIn(page, site, server);
  await settled(page);
  for (const [, command, code, message] of forged) {
    const refused = await page.evaluate(async (command) => {
      const receipt = session.issue(command);
      const error = (await receipt.accepted.catch((reason: unknown) => reason)) as Error & { code: string };
      return { seq: receipt.seq, pending: session.sync.pending, name: error.name, code: error.code, message: error.message };
    }, command);
    expect(refused).toMatchObject({ seq: 0, pending: 0, name: 'Rejection', code });
    expect(refused.message).toMatch(message);
  }
  expect(await page.evaluate(() => refusals.map(({ code }) => code))).toEqual(forged.map(([, , code]) => code));
  expect(await journal(server, id)).toHaveLength((await stored(server, id)).version);
  expect((await stored(server, id)).products).toEqual([]);
});

test('the server refuses the same when the page speaks the protocol by itself', async ({ page, site, server }) => {
  const id = await openIn(page, site, server);
  await settled(page);
  const token = await tokenOf(page, id);
  const { frames } = await speak(
    page,
    server,
    [hello(id, token), ...forged.map(([, command], index) => submit(index + 1, command))],
    { type: 'rejected', count: forged.length },
  );
  const rejected = frames.filter(({ type }) => type === 'rejected');
  expect(rejected.map(({ seq, reason }) => [seq, (reason as { code: string }).code])).toEqual(
    forged.map(([, , code], index) => [index + 1, code]),
  );
  rejected.forEach(({ reason }, index) => expect((reason as { message: string }).message).toMatch(forged[index]![3]));
  expect(await stored(server, id)).toMatchObject({ status: 'pending', currentStep: 'checkout', products: [], amount: 0 });
  expect(disorder(await journal(server, id))).toEqual([]);
});

test('an unknown command is refused once, and the queue goes on', async ({ page, site, server }) => {
  const id = await openIn(page, site, server);
  await settled(page);
  const token = await tokenOf(page, id);
  const unknown = submit(1, { type: 'makeMeRich', amount: 1 });
  const { frames } = await speak(
    page,
    server,
    [hello(id, token), unknown, submit(2, { type: 'setEmail', email: 'on@example.com' }), unknown],
    { type: 'rejected', count: 2 },
  );
  const answers = frames.filter(({ type }) => type === 'rejected' || type === 'accepted');
  expect(answers.map(({ type, seq }) => [type, seq])).toEqual([
    ['rejected', 1],
    ['accepted', 2],
    // Sent again it gets the answer it had.
    ['rejected', 1],
  ]);
  expect(answers[0]!['reason']).toMatchObject({ code: 'malformedCommand', mendableBy: 'permanent' });
  expect(answers[2]!['reason']).toEqual(answers[0]!['reason']);
  expect((await stored(server, id)).email).toBe('on@example.com');
  const records = await journal(server, id);
  expect(records.filter(({ event }) => event.type === 'commandRejected')).toHaveLength(1);
  expect(disorder(records)).toEqual([]);
});

test("another session's token is refused, and so is none", async ({ browser, page, site, server }) => {
  const id = await openIn(page, site, server);
  await settled(page);
  const stranger = await browser.newContext();
  const theirs = await stranger.newPage();
  const other = await openIn(theirs, site, server);
  await settled(theirs);
  const token = await tokenOf(theirs, other);
  await stranger.close();

  for (const [credential, message] of [
    [token, /another session/],
    ['', /token/],
    [`${token}x`, /./],
  ] as const) {
    const refused = await speak(page, server, [hello(id, credential)]);
    expect(refused.closed).toBe(4401);
    expect(refused.frames).toMatchObject([{ type: 'error', code: 'unauthorized' }]);
    expect(refused.frames[0]!['message']).toMatch(message);
  }
  // A claim that somebody else made up opens nothing either.
  const { token: _, ...claiming } = { ...hello(id, ''), claim: 'x'.repeat(43) };
  const refused = await speak(page, server, [claiming]);
  expect(refused.closed).toBe(4401);
});

test('frames that are too large, binary or no frames at all end the conversation with a reason', async ({
  page,
  site,
  server,
}) => {
  const id = await openIn(page, site, server);
  await settled(page);
  const token = await tokenOf(page, id);
  const large = submit(1, { type: 'setMetadata', metadata: { text: 'x'.repeat(70 * 1024) } });
  for (const [frame, message] of [
    [large, /65536 bytes/],
    [{ bytes: 16 }, /text/],
    ['not JSON', /JSON/],
    [{ type: 'welcome' }, /hello, submit or ping/],
  ] as const) {
    const ended = await speak(page, server, [hello(id, token), frame]);
    expect(ended.closed, JSON.stringify(message.source)).toBe(1007);
    const last = ended.frames.at(-1);
    expect(last).toMatchObject({ type: 'error', code: 'malformedFrame' });
    expect(last!['message']).toMatch(message);
  }
  // The session itself is none the worse.
  await page.evaluate(() => session.setEmail('after@example.com').durable);
  expect(disorder(await journal(server, id))).toEqual([]);
});

test('a page of another origin gets neither a socket nor an answer', async ({ page, server }) => {
  const foreign = await StaticSite.start({ pages: { '/': '<!doctype html><title>elsewhere</title>' } });
  try {
    await page.goto(foreign.url);
    const attempt = await speak(page, server, [hello('ws_mwor0dc0_0123456789abcdefghijklmno', 'x')]);
    expect(attempt).toMatchObject({ opened: false, frames: [], closed: 1006 });
    await expect(page.evaluate((url) => fetch(`${url}/v1/funnels/default`), server.url)).rejects.toThrow('Failed to fetch');
    // What a browser hides from the page: the status.
    const upgrade = { connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': '13' };
    const answer = await page.request.get(`${server.url}/v1/sync`, {
      headers: {
        ...upgrade,
        'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
        'sec-websocket-protocol': 'throughline.v1',
        origin: foreign.url,
      },
    });
    expect(answer.status()).toBe(403);
  } finally {
    await foreign.stop();
  }
});
