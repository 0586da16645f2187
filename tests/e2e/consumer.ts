import { execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

import { test as base } from './fixtures.js';
import { inRepository } from './repository.js';

const run = promisify(execFile);
const bundlers = inRepository('tests/bundlers');
const environment = { ...process.env, NEXT_TELEMETRY_DISABLED: '1' };

/** How long a program may take that a test runs in a project, and until a server in it answers. */
const limitMs = 120_000;
const pollMs = 50;

/** A project of somebody who has installed the packed tarball, beside the bundlers of `tests/bundlers`. */
export class Consumer {
  readonly folder: string;

  constructor(folder: string) {
    this.folder = folder;
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  /** The folder that the package is installed in. */
  get package(): string {
    return this.path('node_modules/throughline');
  }

  async write(files: Readonly<Record<string, string>>): Promise<void> {
    for (const [name, text] of Object.entries(files)) {
      await mkdir(dirname(this.path(name)), { recursive: true });
      await writeFile(this.path(name), text);
    }
  }

  /** Runs a program in the project; what it prints is the answer. */
  async run(program: string, ...args: readonly string[]): Promise<string> {
    const { stdout } = await run(program, args, { cwd: this.folder, timeout: limitMs, env: environment });
    return stdout;
  }

  /** Runs a program that serves this address, as long as `work` takes. */
  async serving<T>(url: string, program: string, args: readonly string[], work: () => Promise<T>): Promise<T> {
    const child = spawn(program, args, { cwd: this.folder, env: environment, stdio: ['ignore', 'pipe', 'pipe'] });
    let log = '';
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text: string) => (log += text));
    const ended = once(child, 'exit');
    try {
      for (const deadline = Date.now() + limitMs; ; await sleep(pollMs)) {
        if (child.exitCode !== null) throw new Error(`${program} ended with ${child.exitCode}:\n${log}`);
        if (Date.now() > deadline) throw new Error(`${program} did not answer within ${limitMs} ms:\n${log}`);
        // One that refuses a request without a credential answers as well.
        if (await fetch(url).then(({ status }) => status < 500, () => false)) break;
      }
      return await work();
    } catch (error) {
      // Why a program answers 500 is in its log alone.
      throw new Error(`while ${program} was serving, which printed:\n${log}`, { cause: error });
    } finally {
      child.kill();
      await ended;
    }
  }
}

/** A program that a dependency of `tests/bundlers` has installed. */
export function program(name: string): string {
  return join(bundlers, 'node_modules/.bin', name);
}

/** TypeScript as JavaScript; JSX stays as it is. */
export function withoutTypes(text: string): string {
  const args = ['--loader=tsx', '--jsx=preserve', '--target=es2022'];
  return execFileSync(program('esbuild'), args, { input: text, encoding: 'utf8' });
}

interface WorkerFixtures {
  /** A folder that the tarball was installed in. */
  installed: string;
}

interface Fixtures {
  consumer: Consumer;
}

export const test = base.extend<Fixtures, WorkerFixtures>({
  installed: [
    async ({}, use) => {
      const installed = await newFolder();
      const packed = (await readdir(inRepository('target/npm'))).filter((name) => name.endsWith('.tgz'));
      if (packed.length !== 1) throw new Error(`target/npm should hold one tarball, and holds ${packed.length}`);
      await writeFile(join(installed, 'package.json'), JSON.stringify({ name: 'consumer', private: true, type: 'module' }));
      const tarball = inRepository(`target/npm/${packed[0]}`);
      await run('npm', ['install', '--offline', '--no-audit', '--no-package-lock', tarball], { cwd: installed });
      await use(installed);
      await rm(installed, { recursive: true, force: true });
    },
    { scope: 'worker' },
  ],
  consumer: async ({ installed }, use) => {
    const consumer = new Consumer(await newFolder());
    await cp(installed, consumer.folder, { recursive: true });
    await use(consumer);
    await rm(consumer.folder, { recursive: true, force: true });
  },
});

/** Below `tests/bundlers`, so that what is written there finds the bundlers. */
async function newFolder(): Promise<string> {
  return mkdtemp(join(bundlers, 'consumer-'));
}

export { expect } from '@playwright/test';
