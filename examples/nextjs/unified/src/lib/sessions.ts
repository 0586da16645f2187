import { nodeFetch, ThroughlineServer } from 'throughline/server';

let made: ThroughlineServer | undefined;

/** The sessions, for the routes. One for the process, made when it is needed: a build has no service key. */
export function sessions(): ThroughlineServer {
  made ??= new ThroughlineServer({
    url: process.env.THROUGHLINE_URL!,
    serviceKey: process.env.THROUGHLINE_SERVICE_KEY!,
    // Only routes use it: none of them is made beforehand.
    fetch: nodeFetch(),
  });
  return made;
}
