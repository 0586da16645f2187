import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

import { freePort } from './ports.js';
import { inRepository } from './repository.js';

const readyLimitMs = 20_000;
const stopLimitMs = 15_000;
const pollMs = 50;

/** What a test may choose about its server. */
export interface ServerOptions {
  /** Pages that may connect, as origins. */
  allowedOrigins?: readonly string[];
  /** More environment variables. */
  env?: Readonly<Record<string, string>>;
  /** More arguments of `throughline serve`. */
  args?: readonly string[];
  /** A database of PostgreSQL; else it is a file in the server's folder. */
  databaseUrl?: string;
}

/**
 * The real server, with its database in a folder of its own. It can be killed and started again on the same port,
 * database and keys.
 */
export class ThroughlineServer {
  readonly url: string;
  /** What a shop's back end has. */
  readonly serviceKey: string;
  /** A service key that may do everything. */
  readonly operatorKey: string;
  readonly folder: string;
  readonly #environment: NodeJS.ProcessEnv;
  readonly #required: readonly string[];
  #arguments: readonly string[];
  #process: ChildProcess | undefined;
  #log = '';

  private constructor(port: number, folder: string, keys: Keys, options: ServerOptions) {
    this.url = `http://127.0.0.1:${port}`;
    this.folder = folder;
    this.serviceKey = keys.serviceKey;
    this.operatorKey = keys.operatorKey;
    this.#environment = {
      ...process.env,
      ...keys.environment,
      ...(options.allowedOrigins === undefined ? {} : { THROUGHLINE_ALLOWED_ORIGINS: options.allowedOrigins.join(',') }),
      ...options.env,
    };
    this.#required = [
      'serve',
      '--listen',
      `127.0.0.1:${port}`,
      '--database-url',
      options.databaseUrl ?? `sqlite:${join(folder, 'throughline.db')}`,
    ];
    this.#arguments = options.args ?? [];
  }

  /** Starts a server and resolves when it is ready to answer. */
  static async start(options: ServerOptions = {}): Promise<ThroughlineServer> {
    const [port, folder, keys] = await Promise.all([
      freePort(),
      mkdtemp(join(tmpdir(), 'throughline-e2e-')),
      generateKeys(),
    ]);
    const server = new ThroughlineServer(port, folder, keys, options);
    try {
      await server.#launch();
    } catch (error) {
      await server.stop();
      throw error;
    }
    return server;
  }

  /** Everything the server printed, over all its lives. */
  get log(): string {
    return this.#log;
  }

  /** Ends the process at once, as a crash or a power cut would. */
  async kill9(): Promise<void> {
    await this.#end('SIGKILL');
  }

  /**
   * Starts it again on the same port, database and keys, ending it first where it still runs.
   *
   * @param args More arguments of `throughline serve`, in place of those that it had.
   */
  async restart(args: readonly string[] = this.#arguments): Promise<void> {
    await this.#end('SIGTERM');
    this.#arguments = args;
    await this.#launch();
  }

  /** Ends the process and removes its folder. */
  async stop(): Promise<void> {
    await this.#end('SIGTERM');
    await rm(this.folder, { recursive: true, force: true });
  }

  /** A request with the service key, unless it has another. */
  async request(path: string, init: RequestInit = {}): Promise<Response> {
    const headers = new Headers(init.headers);
    if (!headers.has('authorization')) headers.set('authorization', `Bearer ${this.serviceKey}`);
    // A connection that is kept for later does not outlive a kill of the server.
    headers.set('connection', 'close');
    if (init.body !== undefined && !headers.has('content-type')) headers.set('content-type', 'application/json');
    return fetch(this.url + path, { ...init, headers });
  }

  /** Sets which side of a shop's route answers. */
  async setRouteMode(route: string, mode: string): Promise<void> {
    const headers = { authorization: `Bearer ${this.operatorKey}` };
    const body = JSON.stringify({ mode });
    const answer = await this.request(`/v1/routes/${encodeURIComponent(route)}`, { method: 'PUT', headers, body });
    if (!answer.ok) throw new Error(`the mode was not set: ${await answer.text()}`);
  }

  /** Runs another command of the program, on the server's database and with its keys; what it prints. */
  async command(...args: string[]): Promise<string> {
    const [, , , ...database] = this.#required;
    const options = { cwd: this.folder, env: this.#environment, maxBuffer: 64 * 1024 * 1024 };
    const { stdout } = await promisify(execFile)(binary(), [...args, ...database], options);
    return stdout;
  }

  async #launch(): Promise<void> {
    const child = spawn(binary(), [...this.#required, ...this.#arguments], {
      cwd: this.folder,
      env: this.#environment,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#process = child;
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => (this.#log += text));
    }
    let failure: Error | undefined;
    child.once('error', (error) => (failure = error));

    const deadline = Date.now() + readyLimitMs;
    while (Date.now() < deadline) {
      if (failure !== undefined) throw failure;
      if (child.exitCode !== null) throw new Error(`the server ended with ${child.exitCode}:\n${this.#log}`);
      const ready = await fetch(`${this.url}/readyz`).catch(() => undefined);
      if (ready?.ok === true) return;
      await sleep(pollMs);
    }
    throw new Error(`the server was not ready within ${readyLimitMs} ms:\n${this.#log}`);
  }

  async #end(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (child === undefined || child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill(signal);
    const timer = setTimeout(() => child.kill('SIGKILL'), stopLimitMs);
    await ended;
    clearTimeout(timer);
  }
}

interface Keys {
  serviceKey: string;
  operatorKey: string;
  environment: Record<string, string>;
}

function binary(): string {
  return process.env.THROUGHLINE_BIN ?? inRepository('target/debug/throughline');
}

/** Keys that stay the same over restarts: `--dev` makes new ones for each process. */
async function generateKeys(): Promise<Keys> {
  const generate = async (...more: string[]) => {
    const { stdout } = await promisify(execFile)(binary(), ['keys', 'generate', '--json', ...more]);
    return JSON.parse(stdout) as { keys: string; serviceKey: string; serviceKeyHash: string };
  };
  const [keys, operator] = await Promise.all([generate(), generate('--operator')]);
  const hashes = [keys.serviceKeyHash, operator.serviceKeyHash].join();
  return {
    serviceKey: keys.serviceKey,
    operatorKey: operator.serviceKey,
    environment: { THROUGHLINE_KEYS: keys.keys, THROUGHLINE_SERVICE_KEY_HASHES: hashes },
  };
}
