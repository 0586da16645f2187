/** What carries frames tells its owner; nothing after `closed`. */
export interface TransportEvents {
  opened(): void;
  received(frame: string): void;
  /** It is gone, for whatever reason. */
  closed(): void;
  /** What the client would say hello with now. */
  hello(): string | undefined;
}

/** A way to the server. */
export interface Transport {
  send(frame: string): void;
  /** Ends it; its owner hears nothing more. */
  close(): void;
}
