/** Whether `work` ends before the time is over or the signal aborts. It goes on in any case, and whether it fails is not asked. */
export function endsWithin(work: Promise<unknown>, limitMs: number, signal?: AbortSignal): Promise<boolean> {
  return new Promise((resolve) => {
    const end = (hasEnded: boolean) => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
      resolve(hasEnded);
    };
    const abort = () => end(false);
    const timer = setTimeout(abort, limitMs);
    signal?.addEventListener('abort', abort);
    if (signal?.aborted) abort();
    work.then(
      () => end(true),
      () => end(true),
    );
  });
}

/** A time after which something is done, unless it is not needed any more. No process is kept alive for it. */
export class Deadline {
  readonly #timer: ReturnType<typeof setTimeout>;

  constructor(afterMs: number, work: () => void) {
    this.#timer = setTimeout(work, afterMs);
    // Node.js alone would wait for it.
    (this.#timer as { unref?: () => void }).unref?.();
  }

  cancel(): void {
    clearTimeout(this.#timer);
  }
}
