import type * as throughline from 'throughline';

import { expect, test as base } from './fixtures.js';
import { OtlpReceiver, type Span } from './otlp-receiver.js';
import { openIn, settled } from './sdk.js';
import { ThroughlineServer } from './server.js';

const ofPage = '4bf92f3577b34da6a3ce929d0e0e4736';
const inPage = '00f067aa0ba902b7';

const test = base.extend<{ receiver: OtlpReceiver }>({
  receiver: async ({}, use) => {
    const receiver = await OtlpReceiver.start();
    await use(receiver);
    await receiver.stop();
  },
  server: async ({ site, receiver }, use) => {
    const env = { THROUGHLINE_OTLP_ENDPOINT: receiver.url, OTEL_BSP_SCHEDULE_DELAY: '50' };
    const server = await ThroughlineServer.start({ allowedOrigins: [site.url], env });
    await use(server);
    await server.stop();
  },
});

/** The spans of a trace by their names, once that of the database is among them. */
async function collected(receiver: OtlpReceiver, trace: string): Promise<Map<string, Span>> {
  const look = async () => new Map((await receiver.spans()).filter((span) => span.trace === trace).map((span) => [span.name, span]));
  const names = ['command', 'commit', 'database commit'];
  await expect.poll(async () => [...(await look()).keys()]).toEqual(expect.arrayContaining(names));
  return look();
}

test("what a page's OpenTelemetry began is followed down to the database", async ({ page, site, server, receiver }) => {
  const id = await openIn(page, site, server);
  await settled(page);
  await page.evaluate(() => session.close());
  const traceId = await page.evaluate(
    async ([url, sessionId, traceparent]) => {
      const { openSession } = (await import('/throughline/index.js' as string)) as typeof throughline;
      let asked = 0;
      const trace = () => {
        asked += 1;
        if (asked === 2) throw new Error('the page does not know');
        return asked === 1 ? traceparent : 'nonsense';
      };
      const session = await openSession({ url: url!, sessionId: sessionId!, trace });
      const receipt = session.setEmail('ada@example.com');
      // What can't be traced is done all the same.
      const others = [session.setMetadata({ a: 1 }), session.setMetadata({ b: 2 })];
      await Promise.all([receipt, ...others].map(({ durable }) => durable));
      return [receipt, ...others].map((each) => each.traceId ?? null);
    },
    [server.url, id, `00-${ofPage}-${inPage}-01`] as const,
  );
  expect(traceId).toEqual([ofPage, null, null]);

  const spans = await collected(receiver, ofPage);
  const [command, commit, database] = [spans.get('command')!, spans.get('commit')!, spans.get('database commit')!];
  expect(command).toMatchObject({ parent: inPage, attributes: { 'session.id': id, 'throughline.command.type': 'setEmail' } });
  expect(commit.parent).toBe(command.id);
  expect(database).toMatchObject({ parent: commit.id, attributes: { 'db.system.name': 'sqlite' } });
  const batch = (await receiver.spans()).find(({ links }) => links.some((link) => link.id === database.id));
  expect(batch).toMatchObject({ name: 'database batch' });
  expect(JSON.stringify(await receiver.spans())).not.toContain('ada@example.com');
});

test('a command that was issued offline is followed after the page was loaded again', async ({ page, site, server, receiver }) => {
  const id = await openIn(page, site, server, { trace: true });
  await settled(page);
  const traceId = await page.evaluate(async () => {
    session.goOffline();
    const { traceId } = session.setEmail('grace@example.com');
    await session.close();
    return traceId;
  });
  expect(traceId).toMatch(/^[\da-f]{32}$/);
  // This page is not traced itself.
  await openIn(page, site, server, { sessionId: id });
  await settled(page);
  expect((await collected(receiver, traceId!)).get('command')!.attributes['throughline.command.type']).toBe('setEmail');
});
