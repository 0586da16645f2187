/**
 * Checkout sessions that hold from the browser to the database.
 *
 * ```ts
 * const session = await openSession({ url: 'https://checkout.shop.example' });
 * session.subscribe(() => render(session.getSnapshot(), session.sync));
 * await session.setEmail('ada@example.com').durable;
 * ```
 *
 * @packageDocumentation
 */
import { open, type OpenOptions, prepare, type Starter } from './open.js';
import type { CheckoutSession } from './session.js';
import { coreVersion } from './version.js';

export * from './exports.js';
export type { OpenOptions } from './open.js';
/** @internal */
export { type Begun, forgetSession, type Starter } from './open.js';

// Written out in this form, bundlers find the file and give it its final address.
const wasm = () => new URL('./throughline_bg.wasm', import.meta.url);

/**
 * Opens a checkout session: the one named, else this browser's latest, else a new one.
 *
 * A new session needs no connection, once the funnel is known to this browser; it is shown at once and claimed at
 * the server later.
 *
 * @throws {SessionError} where there is nothing of the session here and the server can't be asked, or does not know it; and
 * where the WebAssembly core can't be loaded.
 */
export function openSession(options: OpenOptions): Promise<CheckoutSession> {
  return open(options, wasm);
}

/** The version of this package. */
export function version(): Promise<string> {
  return coreVersion(wasm);
}

/** @internal For `throughline/legacy`. */
export function prepareSession(options: OpenOptions): Promise<Starter> {
  return prepare(options, wasm);
}
