import type { Session } from '../server/types.js';
import { major } from './shapes.js';
import { isObject, textIn } from './values.js';

/** What legacy code tells of an extra. */
export interface Details {
  code: string;
  transactionId: string | undefined;
  amount: unknown;
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
