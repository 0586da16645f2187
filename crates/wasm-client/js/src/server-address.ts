/** A path below the server's address, which may be relative to the page. */
export function serverAddress(server: string, path: string): URL {
  const base = server.endsWith('/') ? server : `${server}/`;
  return new URL(path, new URL(base, typeof location === 'undefined' ? undefined : location.href));
}
