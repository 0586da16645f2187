/** By how much the device's clock may fall behind the steady one before it counts as set back, in milliseconds. */
const TOLERANCE_MS = 1000;

/**
 * The server's time, as well as this device can know it. Its own clock may be wrong, and may be set while the page is
 * open; what was heard of the server's clock last is kept with the session, for pages that open without a connection.
 */
export class ServerClock {
  /** By how much the server's clock is ahead of this device's. */
  #aheadMs: number;
  #wall = Date.now();
  #steady = performance.now();

  constructor(aheadMs: number) {
    this.#aheadMs = aheadMs;
  }

  /** By how much the server's clock is ahead of this device's, in milliseconds. */
  get aheadMs(): number {
    this.#noticeSetBack();
    return this.#aheadMs;
  }

  /** Milliseconds since the Unix epoch. */
  now(): number {
    return this.aheadMs + this.#wall;
  }

  /** The server has just told its time. */
  heard(time: number): void {
    this.follow(time - Date.now());
  }

  /** Another tab knows by how much the server's clock is ahead. */
  follow(aheadMs: number): void {
    this.#noticeSetBack();
    this.#aheadMs = aheadMs;
  }

  /**
   * Where the device's clock went back, or less far than the steady one, somebody has set it. Where it went further, the
   * device may as well have slept, for which the steady one need not count: the server's next answer tells.
   */
  #noticeSetBack(): void {
    const wall = Date.now();
    const steady = performance.now();
    const behind = steady - this.#steady - (wall - this.#wall);
    if (behind > TOLERANCE_MS) this.#aheadMs += behind;
    this.#wall = wall;
    this.#steady = steady;
  }
}
