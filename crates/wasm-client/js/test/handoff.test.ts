import { readFile } from 'node:fs/promises';
import { afterEach, expect, test, vi } from 'vitest';

import { askForHandoff, handoffCodeIn, removeHandoffCode } from '../src/handoff.js';
import { openSession } from '../src/index.js';

const server = 'https://checkout.shop.example';
const code = 'v4.local.a-b_C9';

afterEach(() => vi.unstubAllGlobals());

/** The link to this page that the session is given. */
async function linkTo(page: string): Promise<string> {
  vi.stubGlobal('fetch', async () => Response.json({ code, expiresAt: '2026-11-20T09:05:00Z' }));
  return (await askForHandoff(server, 'ws_a', { headers: { authorization: 'Bearer token' } }, page)).url;
}

/** A page at this address; the answer tells which address it shows. */
function pageAt(address: string): () => string {
  const location = new URL(address);
  vi.stubGlobal('location', location);
  vi.stubGlobal('history', { state: null, replaceState: (_state: unknown, _title: string, next: string) => (location.href = new URL(next, location).href) });
  return () => location.href;
}

test.each([
  ['https://shop.example/', '#throughline-handoff='],
  ['https://shop.example/checkout?step=2', '#throughline-handoff='],
  ['https://shop.example/#/', '#/?throughline-handoff='],
  ['https://shop.example/#/checkout', '#/checkout?throughline-handoff='],
  ['https://shop.example/#/checkout?step=2', '#/checkout?step=2&throughline-handoff='],
  ['https://shop.example/app?a=1#!/checkout/a%2Fb?step=2&name=Ada%20K', '#!/checkout/a%2Fb?step=2&name=Ada%20K&throughline-handoff='],
  ['https://shop.example/#step=2&name=a+b', '#step=2&name=a+b&throughline-handoff='],
  ['https://shop.example/#products', '#products&throughline-handoff='],
  ['https://shop.example/#/a#b', '#/a#b?throughline-handoff='],
])('a link to %s keeps what stands behind #, and its code is found and removed', async (page, expected) => {
  const link = await linkTo(page);
  expect(new URL(link).hash).toBe(expected + code);
  expect(handoffCodeIn(link)).toBe(code);
  expect(handoffCodeIn(new URL(link))).toBe(code);
  expect(handoffCodeIn(new URL(link).hash)).toBe(code);
  // A page that still shows a code of before asks for another one: there is one in the link.
  expect(await linkTo(link)).toBe(link);
  const shown = pageAt(link);
  removeHandoffCode();
  expect(shown()).toBe(page);
});

test.each([
  [`#throughline-handoff=${code}&step=2`, '#step=2'],
  [`#/checkout?throughline-handoff=${code}&step=2`, '#/checkout?step=2'],
  [`#/checkout?step=2&throughline-handoff=${code}&to=3`, '#/checkout?step=2&to=3'],
])('what a page puts behind the code in %s stays as well', (hash, rest) => {
  const shown = pageAt(`https://shop.example/app${hash}`);
  expect(handoffCodeIn(shown())).toBe(code);
  removeHandoffCode();
  expect(shown()).toBe(`https://shop.example/app${rest}`);
});

test.each([
  'https://shop.example/', 'https://shop.example/#/checkout?step=2', '#', '',
  // Where servers see it there is none.
  `https://shop.example/?throughline-handoff=${code}`, `https://shop.example/?a=1&throughline-handoff=${code}#/checkout`,
  `https://shop.example/#/checkout?not-throughline-handoff=${code}`,
])('%s has no code, and stays as it is', (address) => {
  expect(handoffCodeIn(address)).toBeUndefined();
  const shown = pageAt(new URL(address, 'https://shop.example/').href);
  const before = shown();
  removeHandoffCode();
  expect(shown()).toBe(before);
});

test('a code by itself is one', () => {
  expect(handoffCodeIn(code)).toBe(code);
});

test.each([
  [410, 'handoffRefused', 'https://shop.example/#/checkout?step=2'],
  [401, 'handoffRefused', 'https://shop.example/#/checkout?step=2'],
  // As good as before.
  [429, 'unreachable', undefined],
  [503, 'unreachable', undefined],
])('a code that is answered %i is %s, and is removed from the address only where it is of no more use', async (status, expected, rest) => {
  const link = await linkTo('https://shop.example/#/checkout?step=2');
  const asked: unknown[] = [];
  vi.stubGlobal('fetch', async (_address: string, { body }: { body: string }) => {
    asked.push(JSON.parse(body));
    return Response.json({ detail: 'no' }, { status });
  });
  const wasm = await readFile(new URL('../generated/throughline_bg.wasm', import.meta.url));
  const shown = pageAt(link);
  await expect(openSession({ url: server, handoff: location.href, wasm })).rejects.toMatchObject({ code: expected });
  expect(asked).toEqual([{ code, claim: expect.stringMatching(/^[0-9a-f]{64}$/) }]);
  // Where the answer was lost on its way, the server has to know who asks again.
  await expect(openSession({ url: server, handoff: link, wasm })).rejects.toMatchObject({ code: expected });
  expect((asked[1] as { claim: string }).claim === (asked[0] as { claim: string }).claim).toBe(rest === undefined);
  expect(shown()).toBe(rest ?? link);
});
