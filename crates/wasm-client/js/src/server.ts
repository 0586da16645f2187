/**
 * For a shop's back end: sessions over REST, from Node.js and from runtimes at the edge.
 *
 * ```ts
 * import { ThroughlineServer } from 'throughline/server';
 *
 * const shop = new ThroughlineServer({ url: 'https://checkout.shop.example', serviceKey });
 * const { session, token } = await shop.createSession({ email: 'ada@example.com' });
 * ```
 *
 * @packageDocumentation
 */
export { ThroughlineServer } from './server/client.js';
export { ThroughlineError, type ThroughlineErrorCode } from './server/error.js';
export type { ServerOptions } from './server/http.js';
export { nodeFetch } from './server/transport.js';
export type * from './server/types.js';
