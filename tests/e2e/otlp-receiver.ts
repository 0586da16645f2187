import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';

import { inRepository } from './repository.js';

/** A span as the receiver shows it. */
export interface Span {
  trace: string;
  id: string;
  parent: string;
  name: string;
  attributes: Record<string, string>;
  links: { trace: string; id: string }[];
}

/** What a collector of OpenTelemetry is to a server. */
export class OtlpReceiver {
  readonly url: string;
  readonly #process: ChildProcess;

  private constructor(process: ChildProcess, url: string) {
    this.#process = process;
    this.url = url;
  }

  static async start(): Promise<OtlpReceiver> {
    const server = process.env.THROUGHLINE_BIN;
    const folder = server === undefined ? inRepository('target/debug') : dirname(server);
    const child = spawn(join(folder, 'otlp-receiver'), { stdio: ['pipe', 'pipe', 'inherit'] });
    const [line] = (await once(createInterface(child.stdout), 'line')) as [string];
    return new OtlpReceiver(child, line.replace('receiving at ', ''));
  }

  /** What has come so far. */
  async spans(): Promise<Span[]> {
    return (await (await fetch(`${this.url}/spans`)).json()) as Span[];
  }

  async stop(): Promise<void> {
    const ended = once(this.#process, 'exit');
    // It ends with its input.
    this.#process.stdin!.end();
    await ended;
  }
}
