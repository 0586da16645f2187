import type { MendableBy, RejectionCode, RejectionReason } from '../generated/types.js';

/** A command was refused; it changed nothing. `message` is a sentence for a person. */
export class Rejection extends Error {
  override readonly name = 'Rejection';
  /** What was wrong: stable, for programs. */
  readonly code: RejectionCode;
  /** Who can mend it. */
  readonly mendableBy: MendableBy;

  constructor(reason: RejectionReason) {
    super(reason.message);
    this.code = reason.code;
    this.mendableBy = reason.mendableBy;
  }
}

/** Why a session can't be opened or kept in step. */
export type SessionErrorCode =
  /** There is no such session at the server. */
  | 'sessionNotFound'
  /** Token or claim are missing, wrong or over. */
  | 'unauthorized'
  /** The server does not speak this version of the protocol; load the page again. */
  | 'unsupportedProtocol'
  /** The server can't be reached, and there is nothing of the session in this browser. */
  | 'unreachable'
  /** The code or link for going on on another device was used already, is over, or was changed. */
  | 'handoffRefused'
  /** The WebAssembly core could not be loaded, or was not given where it has to be. */
  | 'coreNotLoaded'
  /** The session was closed by the page. */
  | 'closed'
  /** Something else; the message tells. */
  | 'failed';

/** A session can't be opened or kept in step. */
export class SessionError extends Error {
  override readonly name = 'SessionError';
  readonly code: SessionErrorCode;

  constructor(code: SessionErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
