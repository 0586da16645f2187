import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { expect, test } from 'vitest';

/** Verdicts of the native build, as `crates/core/tests/core/golden.rs` wrote them down. */
interface Verdicts {
  funnels: Record<string, unknown>;
  verdicts: { funnel: string; question: Record<string, unknown>; answer: string }[];
}

// `cargo xtask test --only npm` builds it.
const { judge } = createRequire(import.meta.url)('../../../../target/npm/verdict/verdict.js') as {
  judge(question: string): string;
};

test('the core gives the same verdicts in WebAssembly as natively, byte for byte', async () => {
  const file = new URL('../../../core/tests/golden/verdicts.json', import.meta.url);
  const { funnels, verdicts } = JSON.parse(await readFile(file, 'utf8')) as Verdicts;
  expect(verdicts.length).toBeGreaterThanOrEqual(200);
  for (const { funnel, question, answer } of verdicts) {
    expect(judge(JSON.stringify({ ...question, funnel: funnels[funnel] }))).toBe(answer);
  }
});

test('what the core can not read is refused with a sentence', () => {
  expect(() => judge('{}')).toThrow(/missing field/);
});
