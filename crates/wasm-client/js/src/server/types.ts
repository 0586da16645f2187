import type { components } from '../../generated/openapi.js';

type Schemas = components['schemas'];

/** A session as the server has it. Money is in minor units of `currency`, times are RFC 3339 in UTC. */
export type Session = Schemas['Session'];
/** What a new session begins with. */
export type NewSession = Schemas['NewSession'];
/** An RFC 7396 merge patch: `null` removes, objects merge, anything else replaces. */
export type SessionPatch = Schemas['SessionPatch'];
/** A command: `type` and its fields. With `clientId` and `seq` it is applied once for as long as the session lives. */
export type Command = Schemas['NumberedCommand'];
/** What became of a command. */
export type Outcome = Schemas['Outcome'];
/** What became of commands, and the session after them. */
export type Outcomes = Schemas['Outcomes'];
/** Whether the buyer can go on, and what is in the way. */
export type Validity = Schemas['Validity'];
/** What there is of one of many sessions. */
export type Got = Schemas['Got'];
/** What became of one of many sessions that were deleted. */
export type Gone = Schemas['Gone'];
/** A part of a session's journal. */
export type Journal = Schemas['Journal'];
/** How the sessions do that were created in some time. */
export type Statistics = Schemas['Statistics'];
/** What the legacy systems have of a session. */
export type LegacySession = Schemas['LegacyOf'];
/** Which funnel a new session follows. */
export type FunnelChoice = Schemas['FunnelChoice'];
/** What became of one of many sessions that were brought in. */
export type Imported = Schemas['Imported'];
/** All data of one buyer or session. */
export type PersonalData = Schemas['Export'];
/** What became of an erasure. */
export type Erasures = Schemas['Erasures'];
/** Why a session is kept although somebody may want it erased. */
export type Hold = Schemas['Hold'];
/** How a route of a shop works that moves here route by route. */
export type RouteMode = Schemas['RouteMode'];
/** The mode of a route, and since when. */
export type ModeOfRoute = Schemas['RouteEntry'];
/** What was found by comparing both sides of a route. */
export type RouteReport = Schemas['RouteReport'];
/** One field in which both sides differed; values are masked. */
export type ReportedDifference = Schemas['ReportedDifference'];
/** How far both sides agree, on each route and field. */
export type Parity = Schemas['ParityDocument'];
/** Who can mend what was wrong. */
export type MendableBy = Schemas['MendableBy'];
/** What the server says of a request that failed (RFC 9457), with the facts of the kind of problem. */
export type Problem = Schemas['ProblemDetails'] & { readonly [member: string]: unknown };
/** A kind of problem that this version of the server knows. */
export type ProblemCode = Schemas['ProblemDetails']['code'];

/** A token for the browser that goes on with a session: for that one alone. */
export interface IssuedToken {
  token: string;
  /** When it ends, unless it is renewed. */
  tokenExpiresAt: string;
}

/** A new session, and the token for its browser. */
export interface CreatedSession extends IssuedToken {
  session: Session;
}

/** What the old shop's cookie was exchanged for. */
export interface ExchangedCookie extends IssuedToken {
  sessionId: string;
}

/** What a token is good for. */
export interface VerifiedToken {
  sessionId: string;
  issuedAt: string;
  /** When it ends, unless it is renewed. */
  expiresAt: string;
}

/** Whose data it is about. */
export type Subject = { email: string } | { sessionId: string };

/** Which sessions a list has. What is said holds together. */
export interface SessionFilter {
  /** The buyer's address, in small or capital letters. */
  email?: string;
  /** Any of these. */
  status?: readonly Schemas['Status'][];
  step?: string;
  funnel?: string;
  createdAfter?: string;
  createdBefore?: string;
  updatedAfter?: string;
  updatedBefore?: string;
  /** How many sessions one request brings: 1 to 200, 50 where nothing is said. The list has all of them. */
  limit?: number;
}

/** Which sessions are counted: those that were created then, of this funnel. */
export interface StatisticsFilter {
  funnel?: string;
  createdAfter?: string;
  createdBefore?: string;
}

/** Which part of a journal. */
export interface JournalRange {
  /** The version after which it begins. */
  after?: number;
  limit?: number;
}

/** What any call may be told. */
export interface CallOptions {
  /** Ends the call, which rejects with the signal's reason. What was sent may be done all the same. */
  signal?: AbortSignal;
  /** How long the call may take with all its tries, in milliseconds. */
  timeoutMs?: number;
}

/** What a call may be told that changes something. */
export interface WriteOptions extends CallOptions {
  /**
   * What makes the server answer a request that is sent again as it did at first, for 24 hours. Each call has one of its own;
   * give one that you can give again, such as the id of a job, where a process that was restarted has to be recognised.
   */
  idempotencyKey?: string;
}
