import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, openSync, readdirSync } from 'node:fs';
import { chmod, chown, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

import { freePort } from './ports.js';

const run = promisify(execFile);

/** The superuser of every private server; it needs no password. */
const user = 'postgres';
const readyLimitMs = 30_000;
const stopLimitMs = 15_000;
const pollMs = 50;

/** As whom PostgreSQL runs, where that is not who we are. */
interface Owner {
  uid: number;
  gid: number;
}

/** A private PostgreSQL: its own folder, its own port. */
export class Postgres {
  readonly #binaries: string;
  readonly #owner: Owner | undefined;
  readonly #folder: string;
  readonly #port: number;
  #process: ChildProcess | undefined;

  private constructor(binaries: string, owner: Owner | undefined, folder: string, port: number) {
    this.#binaries = binaries;
    this.#owner = owner;
    this.#folder = folder;
    this.#port = port;
  }

  /** Starts one and resolves when it answers queries. */
  static async start(): Promise<Postgres> {
    const binaries = await findBinaries();
    const [owner, folder, port] = await Promise.all([
      ownerOfServer(),
      mkdtemp(join(tmpdir(), 'throughline-postgres-')),
      freePort(),
    ]);
    const postgres = new Postgres(binaries, owner, folder, port);
    try {
      if (owner !== undefined) await chown(folder, owner.uid, owner.gid);
      await chmod(folder, 0o700);
      await postgres.#initialize();
      await postgres.#launch();
    } catch (error) {
      await postgres.stop();
      throw error;
    }
    return postgres;
  }

  /** The address of one of its databases, for a client. */
  url(database: string): string {
    return `postgres://${user}@127.0.0.1:${this.#port}/${database}?sslmode=disable`;
  }

  /** Runs statements; what a query answers is dropped. */
  async execute(database: string, statements: string): Promise<void> {
    await this.#psql(database, statements);
  }

  /** The rows of a query, as JSON has them. */
  async rows<Row>(database: string, query: string): Promise<Row[]> {
    return JSON.parse(await this.#psql(database, `SELECT coalesce(json_agg(t), '[]') FROM (${query}) AS t`)) as Row[];
  }

  /** Ends it, with its clients cut off, and removes its folder. */
  async stop(): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (child?.pid !== undefined && child.exitCode === null && child.signalCode === null) {
      const ended = once(child, 'exit');
      child.kill('SIGINT');
      // Not SIGKILL, which its children would outlive for a while.
      const timer = setTimeout(() => child.kill('SIGQUIT'), stopLimitMs);
      await ended;
      clearTimeout(timer);
    }
    await rm(this.#folder, { recursive: true, force: true });
  }

  async #initialize(): Promise<void> {
    const args = ['-D', this.#data, '-U', user, '--auth=trust', '--no-sync', '--encoding=UTF8', '--locale=C', '--no-instructions'];
    await run(join(this.#binaries, 'initdb'), args, { cwd: this.#folder, ...this.#owner });
  }

  async #launch(): Promise<void> {
    const log = openSync(this.#log, 'a');
    const settings = ['listen_addresses=127.0.0.1', 'fsync=off', 'shared_buffers=32MB', 'unix_socket_permissions=0700'];
    const args = ['-D', this.#data, '-p', `${this.#port}`, '-k', this.#folder, ...settings.flatMap((setting) => ['-c', setting])];
    const child = spawn(join(this.#binaries, 'postgres'), args, { cwd: this.#folder, stdio: ['ignore', log, log], ...this.#owner });
    this.#process = child;
    let failure: Error | undefined;
    child.once('error', (error) => (failure = error));
    for (const deadline = Date.now() + readyLimitMs; Date.now() < deadline; await sleep(pollMs)) {
      if (failure !== undefined) throw failure;
      if (child.exitCode !== null) break;
      if (await this.#psql('postgres', 'SELECT 1').then(() => true, () => false)) return;
    }
    throw new Error(`PostgreSQL did not start:\n${await readFile(this.#log, 'utf8')}`);
  }

  async #psql(database: string, statements: string): Promise<string> {
    const args = ['-X', '-q', '-A', '-t', '-v', 'ON_ERROR_STOP=1', this.url(database)];
    const asked = run(join(this.#binaries, 'psql'), args, { maxBuffer: 64 * 1024 * 1024 });
    // Not as an argument: those have an end.
    asked.child.stdin?.end(statements);
    return (await asked).stdout;
  }

  get #data(): string {
    return join(this.#folder, 'data');
  }

  get #log(): string {
    return join(this.#folder, 'log');
  }
}

/** The folder of `initdb`, `postgres` and `psql`. */
async function findBinaries(): Promise<string> {
  const isThere = (folder: string) => ['initdb', 'postgres', 'psql'].every((name) => existsSync(join(folder, name)));
  const found = (process.env.PATH ?? '').split(delimiter).find(isThere);
  if (found !== undefined) return found;
  const configured = await run('pg_config', ['--bindir']).then(({ stdout }) => stdout.trim(), () => '');
  if (configured !== '' && isThere(configured)) return configured;
  const packaged = '/usr/lib/postgresql';
  const versions = existsSync(packaged) ? readdirSync(packaged).map(Number).sort((one, other) => other - one) : [];
  const newest = versions.map((version) => join(packaged, `${version}`, 'bin')).find(isThere);
  if (newest !== undefined) return newest;
  throw new Error('PostgreSQL is not installed: `apt-get install postgresql`, or put its `bin` folder into PATH');
}

/** PostgreSQL refuses to run as root, so root starts it as the user `postgres`, which the distributions' packages create. */
async function ownerOfServer(): Promise<Owner | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  const id = async (of: string) => Number((await run('id', [of, user])).stdout);
  try {
    return { uid: await id('-u'), gid: await id('-g') };
  } catch (cause) {
    throw new Error('PostgreSQL does not run as root, and there is no user `postgres` to run it as; create one', { cause });
  }
}
