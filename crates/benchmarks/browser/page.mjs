// What runs in the page: one contender, told by the address.
const name = new URLSearchParams(location.search).get('contender');

/** Changes a second, in one go over sessions that were made before. */
globalThis.measureChanges = async (fixture, sessions, options) => {
  const contender = await import(`./contenders/${name}.js`);
  await contender.load(fixture, options);
  const prepared = await contender.prepare(sessions);
  contender.sentBytes();
  const from = performance.now();
  for (const session of prepared) {
    const running = contender.run(session);
    if (running) await running;
  }
  const seconds = (performance.now() - from) / 1000;
  const bytes = contender.sentBytes();
  await contender.finish(prepared);
  return { changesPerSecond: (sessions * 4) / seconds, bytes };
};

/** How long calls keep the page busy, in milliseconds, with the storage that pages have. */
globalThis.measureCalls = async (fixture, sessions) => {
  const contender = await import(`./contenders/${name}.js`);
  await contender.load(fixture);
  const prepared = await contender.prepare(sessions, 'indexedDB');
  const times = [];
  for (const session of prepared) await contender.timeCalls(session, times);
  await contender.finish(prepared);
  return times;
};

/** From nothing to the first snapshot, in milliseconds: fetched, compiled, run. */
globalThis.measureStart = async (fixture) => {
  const from = performance.now();
  const contender = await import(`./contenders/${name}.js`);
  await contender.load(fixture);
  if (contender.prepare) await contender.prepare(1);
  return performance.now() - from;
};
