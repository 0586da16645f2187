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
    return sameKind(this.#request, url, init) ?? (new Request(url, init) as R);
  }
}

/** Frameworks have requests of their own, with more in them (`NextRequest`), which are made in the same way. */
function sameKind<R extends Request>(request: R, url: string, init: RequestInit): R | undefined {
  try {
    const made: unknown = new (request.constructor as new (url: string, init: RequestInit) => unknown)(url, init);
    return made instanceof Request ? (made as R) : undefined;
  } catch {
    return undefined;
  }
}
