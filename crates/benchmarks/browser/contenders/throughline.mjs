// The package through its public functions, with a socket that counts what is sent and answers the hello.
import { openSession } from 'throughline';

import { goOn } from './funnel.mjs';

let frames = [];
let fixture;
let count = 0;

/** Answers a hello as the server answered it when the fixture was made, for any session. */
class CountingSocket {
  static OPEN = 1;
  readyState = 0;
  bufferedAmount = 0;

  constructor() {
    queueMicrotask(() => {
      this.readyState = 1;
      this.onopen?.({});
    });
  }

  send(text) {
    if (!text.startsWith('{"type":"hello"')) return void frames.push(text);
    const { sessionId } = JSON.parse(text);
    for (const frame of fixture.answers) {
      const data = JSON.stringify(frame).replaceAll(fixture.sessionId, sessionId);
      queueMicrotask(() => this.onmessage?.({ data }));
    }
  }

  close() {}
}

const open = (sessionId, storage) =>
  openSession({ url: location.origin, storage, sessionId, token: 'for the fixture', fresh: false });

export async function load(given) {
  fixture = given;
  globalThis.WebSocket = CountingSocket;
}

export async function prepare(sessions, storage = 'memory') {
  const opened = [];
  for (let index = 0; index < sessions; index += 1) {
    opened.push(await open(`ws_bench_${String((count += 1)).padStart(20, '0')}`, storage));
  }
  for (const session of opened) while (session.sync.connection !== 'online') await new Promise((go) => setTimeout(go));
  frames = [];
  return opened;
}

/** Each change is sent before the next one is made. */
export async function run(session) {
  for (const { accept, step } of goOn) {
    const sent = frames.length;
    session.acceptUpsell(accept);
    session.goToStep(step);
    if (session.getSnapshot().currentStep !== step) throw new Error('the change is not in the snapshot');
    while (frames.length === sent) await undefined;
  }
}

/** How long one call keeps the page from doing something else, and how long until what it asks for is stored. */
export async function timeCalls(session, times) {
  for (const { accept, step } of goOn) {
    for (const call of [() => session.acceptUpsell(accept), () => session.goToStep(step)]) {
      const from = performance.now();
      call();
      session.getSnapshot();
      times.push(performance.now() - from);
      await new Promise((go) => setTimeout(go, 5));
    }
  }
}

export function sentBytes() {
  const bytes = frames.map((frame) => new TextEncoder().encode(frame).length);
  frames = [];
  return bytes;
}

export async function finish(sessions) {
  await Promise.all(sessions.map((session) => session.close()));
  frames = [];
}
