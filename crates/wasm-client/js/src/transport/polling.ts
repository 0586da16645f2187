import { IN_COOKIE } from '../credentials.js';
import { timeLimit } from '../time-limit.js';
import type { Transport, TransportEvents } from './transport.js';

/** How long the server may wait for something to tell, and how long the answer may take beyond that. */
const WAIT_MS = 25_000;
const PATIENCE_MS = 15_000;
/** How many commands one request brings; the server takes a body of 64 KiB. */
const MAX_COMMANDS = 50;
const MAX_BODY_BYTES = 60_000;

/**
 * Frames in requests, for networks that let no WebSocket through: each request says hello and brings what there is to
 * send; the server answers when it has something to tell. One request is under way at a time.
 */
export class PollingTransport implements Transport {
  readonly #address: string;
  readonly #isInCookie: boolean;
  readonly #events: TransportEvents;
  /** What is to be sent with the next request. */
  #frames: string[] = [];
  #hello: string | undefined;
  /** A request that brings nothing and waits: it is given up as soon as there is something to send. */
  #waiting: AbortController | undefined;
  #isClosed = false;
  #hasOpened = false;
  #wake: () => void = () => undefined;

  constructor(address: string, isInCookie: boolean, events: TransportEvents) {
    this.#address = address;
    this.#isInCookie = isInCookie;
    this.#events = events;
    void this.#run();
  }

  send(frame: string): void {
    if (frame.startsWith('{"type":"hello"')) this.#hello = frame;
    else this.#frames.push(frame);
    this.#waiting?.abort();
    this.#wake();
  }

  close(): void {
    this.#isClosed = true;
    this.#waiting?.abort();
    this.#wake();
  }

  async #run(): Promise<void> {
    // Whoever made this has it by then.
    await undefined;
    this.#events.opened();
    while (!this.#isClosed) {
      const hello = this.#hello ?? this.#events.hello();
      if (hello === undefined) {
        // It speaks when it is spoken to.
        await new Promise<void>((wake) => (this.#wake = wake));
        continue;
      }
      this.#hello = undefined;
      const frames = this.#take();
      const answers = await this.#ask([hello, ...frames], frames.length === 0 && this.#hasOpened);
      if (this.#isClosed) return;
      if (answers === 'given up') continue;
      if (answers === 'failed') {
        this.#isClosed = true;
        return this.#events.closed();
      }
      this.#hasOpened = true;
      for (const frame of answers) if (!this.#isClosed) this.#events.received(frame);
    }
  }

  #take(): string[] {
    let bytes = 0;
    const fits = (frame: string) => (bytes += 3 * frame.length) < MAX_BODY_BYTES;
    const count = this.#frames.slice(0, MAX_COMMANDS).findIndex((frame, index) => index > 0 && !fits(frame));
    return this.#frames.splice(0, count < 0 ? MAX_COMMANDS : count);
  }

  /** One request; its answer as frames. */
  async #ask(frames: string[], mayWait: boolean): Promise<string[] | 'given up' | 'failed'> {
    const waiting = new AbortController();
    if (mayWait) this.#waiting = waiting;
    const waitMs = mayWait ? WAIT_MS : 0;
    try {
      const response = await fetch(this.#address, {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...(this.#isInCookie && IN_COOKIE) },
        body: `{"frames":[${frames.join(',')}],"waitMs":${waitMs}}`,
        signal: timeLimit(waitMs + PATIENCE_MS, waiting.signal),
        cache: 'no-store',
        credentials: this.#isInCookie ? 'include' : 'omit',
      });
      if (!response.ok) return 'failed';
      const { frames: answers } = (await response.json()) as { frames: unknown[] };
      return answers.map((answer) => JSON.stringify(answer));
    } catch {
      return waiting.signal.aborted ? 'given up' : 'failed';
    } finally {
      this.#waiting = undefined;
    }
  }
}
