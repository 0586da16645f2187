// What the core wants done and stored, as it says it; and how it is read.
import type { Command, Funnel, RejectionReason, SessionRecord } from '../generated/types.js';
import { Rejection } from './rejection.js';

/** What the core wants done; see `Client::take_outputs` in the crate. */
export type Output =
  | { type: 'send'; frame: string }
  | { type: 'welcome'; funnel?: Funnel; funnelHash?: string }
  | { type: 'announce'; clientId: string; commands: string; isAll: boolean }
  | { type: 'relay'; answers?: string; frames: string[] }
  | ConfirmedOutput
  | { type: 'applied'; record: SessionRecord }
  | { type: 'retryAfter'; delayMs: number }
  | { type: 'serverTime'; time: number }
  | { type: 'token'; token: string }
  | { type: 'cookieDue' }
  | { type: 'refused'; code: string; message: string; passing: boolean; retryAfterMs?: number }
  | { type: 'missing'; clientId: string }
  | { type: 'changed'; patch: Record<string, unknown> };

/** What the core wants stored, all or none; see `Client::take_writes` in the crate. */
export interface Write {
  asLeader: boolean;
  /** A key without text is to be deleted. */
  changes: [key: string, text?: string][];
  /** The highest number among this client's commands in it. */
  stored?: number;
}

export interface ConfirmedOutput {
  type: 'confirmed';
  clientId: string;
  seq: number;
  accepted?: number;
  durable?: number;
  rejected?: RejectionReason;
  command?: Command;
}

/** How far the server is with a command. */
export type Confirmation = { accepted: number } | { durable: number } | { rejected: Rejection; command: Command };

/** How the session differs from what was shown before, by what the core wants done. */
export function patchIn(outputs: string | undefined): Record<string, unknown> {
  const changed = outputs === undefined ? undefined : readOutputs(outputs).find(({ type }) => type === 'changed');
  return changed?.type === 'changed' ? changed.patch : {};
}

/** Reads what the core wants done: a list, and the texts that it names by number. */
export function readOutputs(text: string): Output[] {
  const { list, named } = readList<Output>(text);
  for (const output of list) {
    if (output.type === 'send') output.frame = named(output.frame);
    else if (output.type === 'announce') output.commands = named(output.commands);
    else if (output.type === 'relay') {
      output.frames = output.frames.map(named);
      if (output.answers !== undefined) output.answers = named(output.answers);
    }
  }
  return list;
}

export function readWrites(text: string): Write[] {
  const { list, named } = readList<Write>(text);
  for (const { changes } of list) for (const change of changes) if (change.length > 1) change[1] = named(change[1]);
  return list;
}

function readList<T>(text: string): { list: T[]; named: (number: unknown) => string } {
  const [list, ...texts] = text.split('\u0001');
  return { list: JSON.parse(list ?? '[]') as T[], named: (number) => texts[number as number] ?? '' };
}

export function confirmationOf(output: ConfirmedOutput): Confirmation {
  if (output.rejected && output.command) {
    return { rejected: new Rejection(output.rejected), command: output.command };
  }
  return output.durable === undefined ? { accepted: output.accepted ?? 0 } : { durable: output.durable };
}
