/** What a connection tells its owner. */
export interface ConnectionEvents {
  opened(): void;
  received(frame: string): void;
  /** It is gone; it comes back by itself unless it was paused. */
  lost(): void;
}

const SUBPROTOCOL = 'throughline.v1';
const FIRST_DELAY_MS = 250;
const LONGEST_DELAY_MS = 30_000;
/** How long a connection may take to open, and how long it may be silent after a ping. */
const PATIENCE_MS = 10_000;
const PING_EVERY_MS = 25_000;

/**
 * The WebSocket to the server: opened again whenever it is lost, with exponential backoff and full jitter, so that a
 * restarted server is not met by all browsers at once; and at once when the browser comes online.
 */
export class Connection {
  readonly #address: string;
  readonly #events: ConnectionEvents;
  #socket: WebSocket | undefined;
  #wanted = false;
  #failures = 0;
  #reconnect: ReturnType<typeof setTimeout> | undefined;
  #heartbeat: ReturnType<typeof setTimeout> | undefined;

  constructor(url: string, events: ConnectionEvents) {
    this.#address = syncAddress(url);
    this.#events = events;
  }

  /** Opens it, and keeps it open. */
  resume(): void {
    this.#wanted = true;
    if (!this.#socket) {
      this.#failures = 0;
      this.#open();
    }
  }

  /** Closes it until `resume`. */
  pause(): void {
    this.#wanted = false;
    clearTimeout(this.#reconnect);
    this.#drop(1000);
  }

  /** Gives the connection up and opens another one, at the earliest after this time. */
  reconnectAfter(delayMs: number): void {
    this.#drop(1000);
    if (this.#wanted) this.#schedule(delayMs);
  }

  send(frame: string): void {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(frame);
  }

  #open(): void {
    clearTimeout(this.#reconnect);
    let socket: WebSocket;
    try {
      socket = new WebSocket(this.#address, SUBPROTOCOL);
    } catch {
      this.#schedule(this.#backoff());
      return;
    }
    this.#socket = socket;
    this.#watch(PATIENCE_MS);
    socket.onopen = () => {
      if (this.#socket !== socket) return;
      this.#listen();
      this.#events.opened();
    };
    socket.onmessage = (message) => {
      if (this.#socket !== socket) return;
      // Only a server that answers is one: an address that accepts and closes at once keeps the backoff growing.
      this.#failures = 0;
      this.#listen();
      this.#events.received(String(message.data));
    };
    socket.onclose = () => {
      if (this.#socket !== socket) return;
      this.#drop();
      if (this.#wanted) this.#schedule(this.#backoff());
    };
  }

  /** After a while of silence asks for a sign of life. */
  #listen(): void {
    clearTimeout(this.#heartbeat);
    this.#heartbeat = setTimeout(() => {
      this.send('{"type":"ping"}');
      this.#watch(PATIENCE_MS);
    }, PING_EVERY_MS);
  }

  /** Takes a connection that stays silent for dead: the network may be gone without telling anybody. */
  #watch(patienceMs: number): void {
    clearTimeout(this.#heartbeat);
    this.#heartbeat = setTimeout(() => this.reconnectAfter(this.#backoff()), patienceMs);
  }

  #drop(code?: number): void {
    const socket = this.#socket;
    this.#socket = undefined;
    clearTimeout(this.#heartbeat);
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(code);
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
      if (this.#wanted && !this.#socket) this.#open();
    }, delayMs);
  }

  /** Tries at once, instead of waiting for the backoff: the browser says that the network is back. */
  wake(): void {
    if (this.#wanted && !this.#socket) {
      this.#failures = 0;
      this.#open();
    }
  }
}

/** `https://shop.example/base` becomes `wss://shop.example/base/v1/sync`. */
function syncAddress(url: string): string {
  const base = typeof location === 'undefined' ? undefined : location.href;
  const address = new URL(url, base);
  address.protocol = address.protocol.replace(/^http/, 'ws');
  address.pathname = `${address.pathname.replace(/\/$/, '')}/v1/sync`;
  address.search = '';
  address.hash = '';
  return address.href;
}
