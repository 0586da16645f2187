import type { Transport, TransportEvents } from './transport.js';

const SUBPROTOCOL = 'throughline.v1';
/** Offered as well where the session's cookie counts. */
const COOKIE_SUBPROTOCOL = 'throughline.cookie';
/** How long it may take to open, and how long it may be silent after a ping. */
const PATIENCE_MS = 10_000;
const PING_EVERY_MS = 25_000;

/** `https://shop.example/v1/sync` becomes `wss://shop.example/v1/sync`. */
function socketAddress(address: string): string {
  return address.replace(/^http/, 'ws');
}

/** Frames over a WebSocket. */
export class WebSocketTransport implements Transport {
  readonly #events: TransportEvents;
  #socket: WebSocket | undefined;
  #heartbeat: ReturnType<typeof setTimeout> | undefined;

  constructor(address: string, isInCookie: boolean, events: TransportEvents) {
    this.#events = events;
    const socket = new WebSocket(socketAddress(address), isInCookie ? [SUBPROTOCOL, COOKIE_SUBPROTOCOL] : SUBPROTOCOL);
    this.#socket = socket;
    this.#watch();
    socket.onopen = () => {
      this.#listen();
      events.opened();
    };
    socket.onmessage = ({ data }) => {
      this.#listen();
      events.received(String(data));
    };
    socket.onclose = () => this.#end();
  }

  send(frame: string): void {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(frame);
  }

  close(): void {
    const socket = this.#socket;
    this.#socket = undefined;
    clearTimeout(this.#heartbeat);
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(1000);
  }

  /** After a while of silence asks for a sign of life. */
  #listen(): void {
    clearTimeout(this.#heartbeat);
    this.#heartbeat = setTimeout(() => {
      this.send('{"type":"ping"}');
      this.#watch();
    }, PING_EVERY_MS);
  }

  /** Takes a connection that stays silent for dead: the network may be gone without telling anybody. */
  #watch(): void {
    clearTimeout(this.#heartbeat);
    this.#heartbeat = setTimeout(() => this.#end(), PATIENCE_MS);
  }

  #end(): void {
    if (!this.#socket) return;
    this.close();
    this.#events.closed();
  }
}
