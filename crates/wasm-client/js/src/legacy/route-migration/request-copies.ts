/** A request whose body can be read by more than one. */
export class RequestCopies<R extends Request> {
  readonly #request: R;
  readonly #body: Promise<ArrayBuffer | null>;

  constructor(request: R) {
    this.#request = request;
    // Before anybody else reads it. One that was read already is told when a copy is wanted.
    this.#body = (async () => (request.body ? request.clone().arrayBuffer() : null))();
    this.#body.catch(() => undefined);
  }

  /** A copy that ends with this signal, and not with the buyer's connection. */
  async copy(signal: AbortSignal): Promise<R> {
    const { url, method, headers } = this.#request;
    const init: RequestInit = { method, headers: new Headers(headers), body: await this.#body, signal };
    return sameKind(this.#request, url, init);
  }
}

/**
 * Frameworks have requests of their own, with more in them. Some are made in their own way (the one that Next.js gives to routes at the
 * edge), of a class that is made as every request is (`NextRequest`).
 */
function sameKind<R extends Request>(request: R, url: string, init: RequestInit): R {
  for (let kind = prototypeOf(request); kind && kind !== Request.prototype; kind = prototypeOf(kind)) {
    try {
      const made: unknown = new (kind.constructor as new (url: string, init: RequestInit) => unknown)(url, init);
      if (made instanceof Request && made.method === init.method) return made as R;
    } catch {
      // The next one may be.
    }
  }
  return new Request(url, init) as R;
}

function prototypeOf(object: object): object | null {
  return Object.getPrototypeOf(object) as object | null;
}
