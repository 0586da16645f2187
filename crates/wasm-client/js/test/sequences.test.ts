import { createReadStream } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';

import { beforeAll, expect, test } from 'vitest';

import { Client } from '../generated/throughline.js';
import { loadCore } from '../src/core.js';
import { patched } from '../src/snapshot.js';

/** Sequences with the native build's answers, as `crates/core/tests/core/sequences.rs` writes them. */
interface Start {
  funnel: unknown;
  frames: { sessionId?: string }[];
  sequences: { commands: { text: string; now: number; refusal: object | null }[]; session: object | null }[];
}

// `cargo xtask test --only npm` has it written.
const FILE = new URL('../../../../target/npm/sequences.jsonl', import.meta.url);

beforeAll(async () => {
  const wasm = await readFile(new URL('../generated/throughline_bg.wasm', import.meta.url));
  await loadCore(() => wasm as BufferSource);
});

function open(funnel: string, frames: readonly string[], sessionId: string): Client {
  const client = Client.open(sessionId, 'browser', '[]')!;
  expect(client.setFunnel(funnel, 'hash')).toBeUndefined();
  client.connected();
  for (const frame of frames) expect(client.handle(frame)).toBeTypeOf('number');
  return client;
}

/** The snapshot after what the core has to say. */
function shown(client: Client, before: object): object {
  const [list] = (client.takeOutputs() ?? '[]').split('\u0001');
  const outputs = JSON.parse(list!) as { type: string; patch: Record<string, unknown> }[];
  return outputs.reduce((snapshot, { type, patch }) => (type === 'changed' ? patched(snapshot, patch) : snapshot), before);
}

test('10,000 sequences of commands end as they do natively: every verdict, and the session that is shown', async () => {
  let count = 0;
  for await (const line of createInterface({ input: createReadStream(FILE) })) {
    const { funnel, frames, sequences } = JSON.parse(line) as Start;
    const definition = JSON.stringify(funnel);
    const texts = frames.map((frame) => JSON.stringify(frame));
    for (const { commands, session } of sequences) {
      const client = open(definition, texts, frames[0]!.sessionId!);
      let snapshot = shown(client, {});
      for (const { text, now, refusal } of commands) {
        const answer = client.submit(text, now);
        if ((answer === undefined ? null : answer) !== (refusal && JSON.stringify(refusal))) {
          expect(answer && JSON.parse(answer), text).toEqual(refusal);
        }
        snapshot = shown(client, snapshot);
      }
      expect(JSON.parse(JSON.stringify(snapshot))).toEqual(session ?? {});
      client.free();
      count += 1;
    }
  }
  expect(count).toBe(10_000);
}, 120_000);
