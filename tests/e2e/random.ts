/** Numbers from 0 to 1 that are the same again for the same seed (xorshift32). */
export function seeded(seed: number): () => number {
  let state = seed | 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

/** A seed from the environment variable `THROUGHLINE_TEST_SEED`, else a new one. */
export function seedOfThisRun(): number {
  const given = Number(process.env.THROUGHLINE_TEST_SEED ?? '');
  return Number.isInteger(given) && given > 0 ? given : Math.floor(Math.random() * 2 ** 31) + 1;
}
