/**
 * The same as the package itself, without its wasm file: the page passes that. For bundlers that do not follow
 * `new URL('./file.wasm', import.meta.url)`, and for files that are served from somewhere else.
 *
 * ```ts
 * const wasm = 'https://cdn.shop.example/throughline_bg.wasm';
 * const session = await openSession({ url: 'https://checkout.shop.example', wasm });
 * ```
 *
 * @packageDocumentation
 */
import { open, type OpenOptions as OpenOptionsOfAll } from './open.js';
import { SessionError } from './rejection.js';
import type { CheckoutSession } from './session.js';
import { coreVersion } from './version.js';
import type { WasmSource } from './wasm-source.js';

export * from './exports.js';

export interface OpenOptions extends OpenOptionsOfAll {
  /** The file `throughline/throughline_bg.wasm`: its address, a response, its bytes, or what was compiled of it. */
  wasm: WasmSource;
}

const noWasm = (): never => {
  const mend = 'pass the file throughline/throughline_bg.wasm to openSession as `wasm`, or import from `throughline`';
  throw new SessionError('coreNotLoaded', `throughline/slim comes without the WebAssembly core: ${mend}`);
};

/**
 * Opens a checkout session: the one named, else this browser's latest, else a new one.
 *
 * @throws {SessionError} as in `throughline`, and where no `wasm` is passed.
 */
export function openSession(options: OpenOptions): Promise<CheckoutSession> {
  return open(options, noWasm);
}

/**
 * The version of this package.
 *
 * @throws {SessionError} before a session was opened.
 */
export function version(): Promise<string> {
  return coreVersion(noWasm);
}
