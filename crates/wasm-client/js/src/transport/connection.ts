import { PollingTransport } from './polling.js';
import type { Transport } from './transport.js';
import { WebSocketTransport } from './web-socket.js';

/** What a connection tells its owner. */
export interface ConnectionEvents {
  opened(): void;
  received(frame: string): void;
  /** It is gone; it comes back by itself unless it was paused. */
  lost(): void;
  /** What the client would say hello with now. */
  hello(): string | undefined;
  /** Whether what lets the browser in is in a cookie, as far as it is not in the greeting. */
  isInCookie(): boolean;
}

const FIRST_DELAY_MS = 250;
const LONGEST_DELAY_MS = 30_000;
/** After how many sockets in a row from which nothing was heard requests are tried. */
const DEAF_SOCKETS = 2;
/** After how long a socket is tried again while requests do. */
const UPGRADE_AFTER_MS = 60_000;

/**
 * The connection to the server: opened again whenever it is lost, with exponential backoff and full jitter, so that a
 * restarted server is not met by all browsers at once; and at once when the browser comes online.
 *
 * It is a WebSocket. Where none is let through it is requests, and a WebSocket is tried again from time to time.
 */
export class Connection {
  readonly #address: string;
  readonly #events: ConnectionEvents;
  #transport: Transport | undefined;
  #isPolling = false;
  /** A socket that may take the place of requests. */
  #candidate: Transport | undefined;
  #wanted = false;
  #failures = 0;
  #deafSockets = 0;
  #reconnect: ReturnType<typeof setTimeout> | undefined;
  #upgrade: ReturnType<typeof setTimeout> | undefined;

  constructor(url: string, events: ConnectionEvents) {
    this.#address = syncAddress(url);
    this.#events = events;
  }

  /** How frames are carried; nothing while they are not. */
  get transport(): 'webSocket' | 'requests' | undefined {
    return this.#transport && (this.#isPolling ? 'requests' : 'webSocket');
  }

  /** Opens it, and keeps it open. */
  resume(): void {
    if (this.#wanted) return;
    this.#wanted = true;
    this.wake();
  }

  /** Closes it until `resume`. */
  pause(): void {
    this.#wanted = false;
    clearTimeout(this.#reconnect);
    this.#drop();
  }

  /** Gives the connection up and opens another one, at the earliest after this time. */
  reconnectAfter(delayMs: number): void {
    this.#drop();
    if (this.#wanted) this.#schedule(delayMs);
  }

  /** Tries at once, instead of waiting for the backoff: the browser says that the network is back. */
  wake(): void {
    if (!this.#wanted) return;
    if (!this.#transport) {
      this.#failures = 0;
      this.#open();
    } else if (this.#isPolling) this.#tryUpgrade();
  }

  send(frame: string): void {
    this.#transport?.send(frame);
  }

  #open(): void {
    clearTimeout(this.#reconnect);
    // Where requests fail as well it is the network, and either may be the first to work again.
    this.#isPolling = !hasSockets() || (this.#deafSockets >= DEAF_SOCKETS && this.#deafSockets % 2 === 0);
    if (!this.#isPolling) this.#deafSockets += 1;
    try {
      this.#transport = this.#isPolling ? this.#poll() : this.#openSocket(() => this.#transport);
    } catch {
      // An address that can't be one; the page was told when it was opened.
      this.#lost();
    }
  }

  #openSocket(current: () => Transport | undefined): Transport {
    const socket: Transport = new WebSocketTransport(this.#address, this.#events.isInCookie(), {
      opened: () => this.#opened(socket),
      received: (frame) => {
        // Only a server that answers is one: an address that accepts and closes at once keeps the backoff growing.
        this.#failures = 0;
        this.#deafSockets = 0;
        this.#events.received(frame);
      },
      closed: () => {
        if (current() === socket) this.#lost();
        else if (this.#candidate === socket) this.#candidate = undefined;
      },
      hello: () => this.#events.hello(),
    });
    return socket;
  }

  #poll(): Transport {
    const polling: Transport = new PollingTransport(this.#address, this.#events.isInCookie(), {
      opened: () => this.#events.opened(),
      received: (frame) => {
        this.#failures = 0;
        this.#events.received(frame);
      },
      closed: () => {
        // The next try is a socket again.
        this.#deafSockets += 1;
        this.#lost();
      },
      hello: () => this.#events.hello(),
    });
    this.#scheduleUpgrade();
    return polling;
  }

  /** A socket is open: the connection, or better than the requests that are it now. */
  #opened(socket: Transport): void {
    if (this.#candidate === socket) {
      this.#candidate = undefined;
      clearTimeout(this.#upgrade);
      this.#transport?.close();
      this.#events.lost();
      this.#transport = socket;
      this.#isPolling = false;
    }
    this.#events.opened();
  }

  #scheduleUpgrade(): void {
    clearTimeout(this.#upgrade);
    this.#upgrade = setTimeout(() => {
      this.#tryUpgrade();
      this.#scheduleUpgrade();
    }, UPGRADE_AFTER_MS);
  }

  #tryUpgrade(): void {
    if (!hasSockets()) return;
    this.#candidate?.close();
    this.#candidate = this.#openSocket(() => this.#transport);
  }

  #lost(): void {
    this.#drop();
    if (this.#wanted) this.#schedule(this.#backoff());
  }

  #drop(): void {
    const transport = this.#transport;
    this.#transport = undefined;
    clearTimeout(this.#upgrade);
    this.#candidate?.close();
    this.#candidate = undefined;
    if (!transport) return;
    transport.close();
    this.#events.lost();
  }

  #backoff(): number {
    const ceiling = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** this.#failures);
    this.#failures += 1;
    return Math.random() * ceiling;
  }

  #schedule(delayMs: number): void {
    clearTimeout(this.#reconnect);
    this.#reconnect = setTimeout(() => {
      if (this.#wanted && !this.#transport) this.#open();
    }, delayMs);
  }
}

/** Node.js before 22 has none. */
function hasSockets(): boolean {
  return typeof WebSocket !== 'undefined';
}

/** `https://shop.example/base` becomes `https://shop.example/base/v1/sync`. */
function syncAddress(url: string): string {
  const address = new URL(url, typeof location === 'undefined' ? undefined : location.href);
  address.pathname = `${address.pathname.replace(/\/$/, '')}/v1/sync`;
  address.search = '';
  address.hash = '';
  return address.href;
}
