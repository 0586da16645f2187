import { createServer, request, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';

/** What becomes of a request that comes by. */
export type Fate =
  /** The server has it, and its answer gets lost. */
  | 'answerLost'
  /** The connection is closed before the server has it. */
  | 'requestLost'
  /** It is kept, and never answered. */
  | 'silence'
  /** Something else answers. */
  | { status: number; headers?: Record<string, string>; body?: string };

export interface Seen {
  method: string;
  path: string;
  key: string | undefined;
  at: number;
}

/** Stands between the SDK and the real server: sees each request, and what becomes of it. */
export class Between {
  /** Every request that came by, in their order. */
  readonly seen: Seen[] = [];
  /** How many connections there were. */
  connections = 0;
  /** What becomes of the next requests; those after them are passed on. */
  fates: Fate[] = [];
  /** Held while the server is being asked: what it answers waits for it. */
  gate: Promise<unknown> = Promise.resolve();
  readonly #server: Server;
  readonly #target: string;

  private constructor(target: string) {
    this.#target = target;
    this.#server = createServer((incoming, answer) => void this.#meet(incoming, answer).catch(() => answer.destroy()));
    this.#server.on('connection', () => this.connections++);
  }

  static async of(target: string): Promise<Between> {
    const between = new Between(target);
    between.#server.listen(0, '127.0.0.1');
    await once(between.#server, 'listening');
    return between;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** What came by since, as `GET /v1/…`. */
  since(before: number): string[] {
    return this.seen.slice(before).map(({ method, path }) => `${method} ${path}`);
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  async #meet(incoming: IncomingMessage, answer: ServerResponse): Promise<void> {
    const fate = this.fates.shift();
    const key = incoming.headers['idempotency-key'] as string | undefined;
    this.seen.push({ method: incoming.method!, path: incoming.url!, key, at: performance.now() });
    if (fate === 'silence') return;
    if (fate === 'requestLost') return void incoming.socket.destroy();
    if (typeof fate === 'object') return void answer.writeHead(fate.status, fate.headers).end(fate.body);
    const onward = request(this.#target + incoming.url, { method: incoming.method!, headers: incoming.headers });
    incoming.pipe(onward);
    const [response] = (await once(onward, 'response')) as [IncomingMessage];
    const chunks: Buffer[] = [];
    for await (const chunk of response) chunks.push(chunk as Buffer);
    await this.gate;
    if (fate === 'answerLost') return void incoming.socket.destroy();
    const { 'transfer-encoding': _, ...headers } = response.headers;
    answer.writeHead(response.statusCode!, headers).end(Buffer.concat(chunks));
  }
}
