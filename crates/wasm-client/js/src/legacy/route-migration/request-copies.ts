/** A request whose body can be read by more than one, as far as it is not too large. */
export class RequestCopies<R extends Request> {
  readonly #request: R;
  readonly #maxBytes: number;
  readonly #body: Promise<Uint8Array<ArrayBuffer> | null>;
  #reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  #hasEnded = false;

  /** @param maxBytes How large a body may be to be copied. */
  constructor(request: R, maxBytes: number) {
    this.#request = request;
    this.#maxBytes = maxBytes;
    // Before anybody else reads it. One that was read already, or is too large, is told when a copy is wanted.
    this.#body = this.#read();
    this.#body.catch(() => undefined);
  }

  /**
   * A copy that ends with this signal, and not with the buyer's connection.
   * @throws where the body is too large, was read before, or did not come to its end.
   */
  async copy(signal: AbortSignal): Promise<R> {
    const { url, method, headers } = this.#request;
    const init: RequestInit = { method, headers: new Headers(headers), body: await this.#body, signal };
    return sameKind(this.#request, url, init);
  }

  /** Nobody wants a copy any more. */
  end(): void {
    this.#hasEnded = true;
    this.#reader?.cancel().catch(() => undefined);
  }

  async #read(): Promise<Uint8Array<ArrayBuffer> | null> {
    if (!this.#request.body) return null;
    if (Number(this.#request.headers.get('content-length')) > this.#maxBytes) throw this.#tooLarge();
    const reader = (this.#request.clone().body as ReadableStream<Uint8Array>).getReader();
    this.#reader = reader;
    const chunks: Uint8Array[] = [];
    let bytes = 0;
    try {
      for (let read = await reader.read(); !read.done; read = await reader.read()) {
        bytes += read.value.byteLength;
        if (bytes > this.#maxBytes) throw this.#tooLarge();
        chunks.push(read.value);
      }
    } finally {
      // The other half is the answering side's, and waits for that.
      reader.cancel().catch(() => undefined);
    }
    if (this.#hasEnded) throw new DOMException('the body of the request was not read to its end', 'AbortError');
    return joined(chunks, bytes);
  }

  #tooLarge(): RangeError {
    return new RangeError(`the body of the request has more than ${this.#maxBytes} bytes: one side was left out; raise \`maxBodyBytes\` where such requests count`);
  }
}

function joined(chunks: readonly Uint8Array[], bytes: number): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(bytes);
  let at = 0;
  for (const chunk of chunks) {
    all.set(chunk, at);
    at += chunk.byteLength;
  }
  return all;
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
