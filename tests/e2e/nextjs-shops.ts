import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, realpath, rm, writeFile } from 'node:fs/promises';
import { basename, join, relative } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

import { freePort } from './ports.js';
import { Postgres } from './postgres.js';
import { inRepository } from './repository.js';

const run = promisify(execFile);

/** The shop with the four legacy systems. */
export const legacyShop = inRepository('examples/nextjs/legacy');

/** The same shop on Throughline. */
export const unifiedShop = inRepository('examples/nextjs/unified');

/** The database that the legacy shop keeps its table `funnel_sessions` in. */
export const shopDatabase = 'shop';

const readyLimitMs = 60_000;
const stopLimitMs = 15_000;
const buildLimitMs = 240_000;
const pollMs = 50;

/** What builds leave behind, and what they are not made from. */
const made = new Set(['.next', 'node_modules', 'next-env.d.ts']);

/** A charge, as the gateway lists it. */
export interface Charge {
  transactionId: string;
  vaultId: string;
  amount: number;
  orderId: string;
  source: 'token' | 'vault';
  status: 'approved' | 'declined';
}

/** A program that serves an address, until it is stopped. */
export class Service {
  readonly url: string;
  readonly #process: ChildProcess;
  readonly #log: string[];

  private constructor(url: string, child: ChildProcess, log: string[]) {
    this.url = url;
    this.#process = child;
    this.#log = log;
  }

  /** Starts a script with Node.js, and resolves when it answers at `url`. */
  static async start(url: string, folder: string, args: readonly string[], env: Readonly<Record<string, string>>): Promise<Service> {
    const child = spawn(process.execPath, args, { cwd: folder, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    const log: string[] = [];
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text: string) => log.push(text));
    const service = new Service(url, child, log);
    for (const deadline = Date.now() + readyLimitMs; Date.now() < deadline && child.exitCode === null; await sleep(pollMs)) {
      if (await fetch(url, { redirect: 'manual' }).then(({ status }) => status < 500, () => false)) return service;
    }
    await service.stop();
    throw new Error(`${args.join(' ')} did not start:\n${service.log}`);
  }

  /** Everything that it has printed. */
  get log(): string {
    return this.#log.join('');
  }

  async stop(): Promise<void> {
    const child = this.#process;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), stopLimitMs);
    await ended;
    clearTimeout(timer);
  }
}

/** A PostgreSQL of its own, with the legacy shop's table. */
export async function startPostgres(): Promise<Postgres> {
  const postgres = await Postgres.start();
  try {
    await postgres.execute('postgres', `CREATE DATABASE ${shopDatabase}`);
    await postgres.execute(shopDatabase, await readFile(join(legacyShop, 'schema.sql'), 'utf8'));
  } catch (error) {
    await postgres.stop();
    throw error;
  }
  return postgres;
}

/** The payment gateway. It forgets everything when it ends. */
export async function startGateway(): Promise<Service> {
  const port = await freePort();
  return Service.start(`http://127.0.0.1:${port}`, inRepository('examples/nextjs/gateway'), ['server.mjs'], { GATEWAY_PORT: `${port}` });
}

/** What the gateway was asked to charge, oldest first, and how many charges it holds up. */
async function chargesAt(gateway: Service): Promise<{ charges: Charge[]; held: number }> {
  const answer = await fetch(`${gateway.url}/charges`);
  return (await answer.json()) as { charges: Charge[]; held: number };
}

/** What the gateway was asked to charge for an order, oldest first. */
export async function chargesOf(gateway: Service, orderId: string): Promise<Charge[]> {
  const { charges } = await chargesAt(gateway);
  return charges.filter((charge) => charge.orderId === orderId);
}

/** How many charges wait for `release`, after `hold`. */
export async function heldBy(gateway: Service): Promise<number> {
  return (await chargesAt(gateway)).held;
}

/** Tells the gateway how to behave; its first lines say what it can be told. */
export async function tell(gateway: Service, order: 'fail-next' | 'after-charge' | 'hold' | 'release', body: object = {}): Promise<void> {
  const answer = await fetch(`${gateway.url}/${order}`, { method: 'POST', body: JSON.stringify(body) });
  if (!answer.ok) throw new Error(`the gateway answered ${answer.status} to ${order}`);
}

/**
 * Builds a shop with Next.js, in its own folder, unless it is built from what is there now. Several processes may ask at once:
 * one builds, the others wait.
 */
export async function buildShop(folder: string): Promise<void> {
  if (!existsSync(join(folder, 'node_modules'))) throw new Error(`run \`npm ci\` in ${folder} first`);
  const release = await takeTurn(folder);
  try {
    const stamp = join(folder, '.next/built-from');
    const wanted = await digest(folder);
    if ((await readFile(stamp, 'utf8').catch(() => '')) === wanted) return;
    await rm(stamp, { force: true });
    const env = { ...process.env, NEXT_TELEMETRY_DISABLED: '1' };
    await run(process.execPath, [nextProgram(folder), 'build'], { cwd: folder, timeout: buildLimitMs, env }).catch(
      ({ stdout, stderr }: { stdout: string; stderr: string }) => {
        throw new Error(`${folder} could not be built:\n${stdout}${stderr}`);
      },
    );
    await writeFile(stamp, wanted);
  } finally {
    await release();
  }
}

/** Starts a shop that is built. */
export async function startShop(folder: string, env: Readonly<Record<string, string>>, givenPort?: number): Promise<Service> {
  const port = givenPort ?? (await freePort());
  const args = [nextProgram(folder), 'start', '--hostname', '127.0.0.1', '--port', `${port}`];
  return Service.start(`http://127.0.0.1:${port}`, folder, args, { NEXT_TELEMETRY_DISABLED: '1', ...env });
}

function nextProgram(folder: string): string {
  return join(folder, 'node_modules/next/dist/bin/next');
}

/** Of every file that the build is made from, those of linked packages as well, and of which versions are installed. */
async function digest(folder: string): Promise<string> {
  const hash = createHash('sha256');
  const read = async (path: string) => hash.update(`${relative(folder, path)}\0`).update(await readFile(path)).update('\0');
  const walk = async (within: string): Promise<void> => {
    const entries = await readdir(within, { withFileTypes: true });
    for (const entry of entries.sort((one, other) => (one.name < other.name ? -1 : 1))) {
      const path = join(within, entry.name);
      if (made.has(entry.name)) continue;
      if (entry.isDirectory()) await walk(path);
      else await read(path);
    }
  };
  await walk(folder);
  const modules = join(folder, 'node_modules');
  const installed = await readdir(modules, { withFileTypes: true });
  for (const entry of installed.filter((entry) => entry.isSymbolicLink())) await walk(await realpath(join(modules, entry.name)));
  const lock = join(modules, '.package-lock.json');
  if (existsSync(lock)) await read(lock);
  return hash.digest('hex');
}

/** Waits until no other process builds this shop. One that died while it was building holds up nobody. */
async function takeTurn(folder: string): Promise<() => Promise<void>> {
  const locks = inRepository('target/shops');
  await mkdir(locks, { recursive: true });
  const lock = join(locks, `${basename(folder)}.lock`);
  for (const deadline = Date.now() + buildLimitMs; Date.now() < deadline; await sleep(pollMs)) {
    try {
      await writeFile(lock, `${process.pid}`, { flag: 'wx' });
      return () => rm(lock, { force: true });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    const holder = Number(await readFile(lock, 'utf8').catch(() => ''));
    if (holder > 0 && !isAlive(holder)) await rm(lock, { force: true });
  }
  throw new Error(`another process has been building ${folder} for too long; if there is none, remove ${lock}`);
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
