// What runs in the page: one contender, told by the address.
const name = new URLSearchParams(location.search).get('contender');

async function runAll(contender, sessions) {
  for (const session of sessions) {
    const running = contender.run(session);
    if (running) await running;
  }
}

/** Changes a second over sessions that were made before, so many open at once, once the browser has compiled what it runs often. */
globalThis.measureChanges = async (fixture, sessions, warmUp, options, atOnce = sessions) => {
  const contender = await import(`./contenders/${name}.js`);
  await contender.load(fixture, options);
  const before = await contender.prepare(warmUp);
  await runAll(contender, before);
  await contender.finish(before);
  let milliseconds = 0;
  for (let done = 0; done < sessions; done += atOnce) {
    const prepared = await contender.prepare(atOnce);
    contender.sentBytes();
    const from = performance.now();
    await runAll(contender, prepared);
    milliseconds += performance.now() - from;
    await contender.finish(prepared);
  }
  return { changesPerSecond: (sessions * 2 * 1000) / milliseconds };
};

/** How long calls keep the page busy, in milliseconds, with the storage that pages have; and the frames of one each. */
globalThis.measureCalls = async (fixture, sessions) => {
  const contender = await import(`./contenders/${name}.js`);
  await contender.load(fixture);
  const times = [];
  const prepared = await contender.prepare(sessions, 'indexedDB');
  for (const session of prepared) await contender.timeCalls(session, times);
  const bytes = contender.sentBytes();
  await contender.finish(prepared);
  return { times, bytes };
};

/** From nothing to the first snapshot, in milliseconds: fetched, compiled, run. */
globalThis.measureStart = async (fixture) => {
  const from = performance.now();
  const contender = await import(`./contenders/${name}.js`);
  await contender.load(fixture);
  if (contender.prepare) await contender.prepare(1);
  return performance.now() - from;
};
