import type { Command, Session } from '../server/types.js';
import { byHand, type Refusal } from './refusals.js';
import type { Change } from './row.js';
import { major, minor } from './shapes.js';
import { isObject, textIn } from './values.js';

/** What legacy code tells of an extra. */
export interface Details {
  code: string;
  transactionId: string | undefined;
  amount: unknown;
}

/** What is asked for about extras. */
export interface Extras {
  accepted: string[];
  declined: string[];
  details: Details[];
}

/**
 * Answers, charges and the step that is named. An offer is answered at its step: those that were made are, before the session goes on, and
 * others after it. A payment makes offers as well.
 */
export function walk(session: Session, extras: Extras, target: string | undefined, isPaidNow: boolean): Change {
  if (target === session.currentStep) return walk(session, extras, undefined, isPaidNow);
  const isAsked = [extras.accepted, extras.declined, extras.details].some(({ length }) => length > 0);
  if (isPaidNow) {
    const isNext = isAsked || target !== undefined;
    return { commands: [], forbidden: [], ...(isNext && { next: (after) => walk(after, extras, target, false) }) };
  }
  const goes: Command[] = target === undefined ? [] : [{ type: 'goToStep', step: target }];
  const isNow = (offer: string) => target === undefined || session.upsells.some((upsell) => upsell.offer === offer);
  const ofNow = divided(extras, isNow);
  const ofThen = divided(extras, (offer) => !isNow(offer));
  const commands: Command[] = ofNow.accepted.map((offer) => ({ type: 'acceptUpsell', offer }));
  commands.push(...ofNow.declined.map((offer): Command => ({ type: 'declineUpsell', offer })));
  const forbidden: Refusal[] = [];
  for (const { code: offer, transactionId, amount } of ofNow.details) {
    const upsell = session.upsells.find((upsell) => upsell.offer === offer);
    if (!transactionId || upsell?.transactionId === transactionId) continue;
    const named = amount == null ? undefined : (minor(amount, session.currency) ?? -1);
    const owed = upsell ? upsell.price + upsell.tax : (named ?? 0);
    if (named === undefined || named === owed || named === upsell?.price) {
      commands.push({ type: 'recordUpsellCharge', offer, transactionId, amount: owed });
    } else forbidden.push(byHand(`the price of the offer ${offer}`, 'amountMismatch'));
  }
  const isLeft = [ofThen.accepted, ofThen.declined, ofThen.details].some(({ length }) => length > 0);
  return { commands: [...commands, ...goes], forbidden, ...(isLeft && { next: (after) => walk(after, ofThen, undefined, false) }) };
}

function divided({ accepted, declined, details }: Extras, fits: (offer: string) => boolean): Extras {
  return { accepted: accepted.filter(fits), declined: declined.filter(fits), details: details.filter(({ code }) => fits(code)) };
}

/**
 * The extras as the metadata of a row tells of them: the session's own entries, with the transactions that no browser may see, and
 * those of charges that no entry tells of.
 */
export function withCharges({ metadata, upsells, currency }: Session): unknown {
  const entries = metadata.upsells ?? [];
  if (!Array.isArray(entries)) return entries;
  const charges = new Map(upsells.filter(({ state, transactionId }) => state === 'charged' && transactionId).map((upsell) => [upsell.offer, upsell]));
  const told = entries.map((entry: unknown) => {
    const code = isObject(entry) ? codeIn(entry) : undefined;
    const charge = code === undefined ? undefined : charges.get(code);
    if (!charge) return entry;
    // The first entry of an offer is that of its charge.
    charges.delete(charge.offer);
    return { ...(entry as object), transactionId: charge.transactionId };
  });
  const others = [...charges.values()].map(({ offer, step, price, tax, transactionId }) => {
    const number = /^upsell-(\d{1,9})$/.exec(step)?.[1];
    return { ...(number && { step: Number(number) }), productCode: offer, amount: major(price, currency), tax: major(tax, currency), transactionId };
  });
  return told.length + others.length > 0 || metadata.upsells ? [...told, ...others] : undefined;
}

/** Browsers see the metadata. */
export function withoutTransactions(upsells: unknown): unknown {
  if (!Array.isArray(upsells)) return upsells;
  return upsells.map((details: unknown) => {
    if (!isObject(details)) return details;
    const { transactionId: _, transaction_id: __, ...others } = details as Record<string, unknown>;
    return others;
  });
}

/** The details of extras that say by which code. */
export function detailsIn(...lists: unknown[]): Details[] {
  return lists.flatMap((list) => (Array.isArray(list) ? list : [])).flatMap((details: unknown) => {
    const code = isObject(details) ? codeIn(details) : undefined;
    if (code === undefined) return [];
    const { amount } = details as { amount?: unknown };
    return [{ code, transactionId: textIn(details as object, 'transactionId', 'transaction_id') || undefined, amount }];
  });
}

function codeIn(details: object): string | undefined {
  return textIn(details, 'productCode', 'product_code') || undefined;
}
