import { useEffect, useRef, useState } from 'react';
import type { Address, CheckoutSession, Receipt, Session } from 'throughline';
import { useCheckout, useSession } from 'throughline/react';

import { issue } from '../session/current-session';

export type BuyerField = 'email' | 'firstName' | 'lastName' | 'phone' | keyof Address;

/** How long after the last key a value goes into the session. */
const settleMs = 350;

const required: ReadonlySet<BuyerField> = new Set([
  'email',
  'firstName',
  'lastName',
  'address',
  'city',
  'state',
  'zipCode',
]);

const names: Readonly<Record<BuyerField, string>> = {
  email: 'email address',
  firstName: 'first name',
  lastName: 'last name',
  phone: 'phone number',
  address: 'street and number',
  city: 'city',
  state: 'state',
  zipCode: 'ZIP code',
  country: 'country',
};

export const buyerFields = Object.keys(names) as BuyerField[];

function read(session: Session, field: BuyerField): string {
  switch (field) {
    case 'email':
      return session.email ?? '';
    case 'firstName':
    case 'lastName':
    case 'phone':
      return session.customer[field] ?? '';
    default:
      return session.customer.shipping?.[field] ?? '';
  }
}

/** Only the field itself is sent, so that two tabs can fill in different ones. */
function write(checkout: CheckoutSession, field: BuyerField, text: string): Receipt {
  switch (field) {
    case 'email':
      return checkout.setEmail(text);
    case 'firstName':
    case 'lastName':
    case 'phone':
      return checkout.setCustomer({ [field]: text });
    default:
      return checkout.setCustomer({ shipping: { [field]: text } });
  }
}

export function problem(field: BuyerField, text: string): string | undefined {
  const value = text.trim();
  if (value === '') return required.has(field) ? `Enter your ${names[field]}` : undefined;
  switch (field) {
    case 'email':
      return /^[^\s@<>,;]+@[^\s@.]+(\.[^\s@.]+)+$/.test(value) ? undefined : 'Enter an address such as name@example.com';
    case 'phone':
      return /^[+\d][\d\s().-]{5,}$/.test(value) ? undefined : 'Enter a number such as 555 010 1020';
    case 'zipCode':
      return /^\d{5}(-\d{4})?$/.test(value) ? undefined : 'Enter five digits, such as 94020';
    default:
      return undefined;
  }
}

/**
 * The buyer's details. What is typed shows at once and goes into the session when it is valid and the typing pauses;
 * what other tabs enter shows in every field that is not being typed in.
 */
export function useBuyerForm() {
  const checkout = useCheckout();
  const session = useSession();
  const [drafts, setDrafts] = useState<Partial<Record<BuyerField, string>>>({});
  const [visited, setVisited] = useState<ReadonlySet<BuyerField>>(new Set());
  const [rejections, setRejections] = useState<Partial<Record<BuyerField, string>>>({});
  const timers = useRef(new Map<BuyerField, number>());

  useEffect(() => {
    const running = timers.current;
    return () => running.forEach((timer) => clearTimeout(timer));
  }, []);

  const send = (field: BuyerField, text: string) => {
    clearTimeout(timers.current.get(field));
    timers.current.delete(field);
    const value = text.trim();
    if (value === read(checkout.getSnapshot(), field)) return;
    // An emptied field is emptied in the session as well, required or not.
    if (value !== '' && problem(field, value) !== undefined) return;
    setRejections(({ [field]: _, ...others }) => others);
    issue(write(checkout, field, value), (reason) => setRejections((all) => ({ ...all, [field]: reason })));
  };

  // What was just typed is not lost with the page: at `pagehide` it would be too late for the browser to store it.
  const flush = useRef(() => {});
  flush.current = () => {
    for (const field of [...timers.current.keys()]) send(field, text(field));
  };
  useEffect(() => {
    const leave = () => flush.current();
    addEventListener('beforeunload', leave);
    document.addEventListener('visibilitychange', leave);
    return () => {
      removeEventListener('beforeunload', leave);
      document.removeEventListener('visibilitychange', leave);
    };
  }, []);

  const text = (field: BuyerField) => drafts[field] ?? read(session, field);

  return {
    text,
    error: (field: BuyerField): string | undefined =>
      (visited.has(field) ? problem(field, text(field)) : undefined) ?? rejections[field],
    isRequired: (field: BuyerField) => required.has(field),
    change: (field: BuyerField, value: string) => {
      setDrafts((all) => ({ ...all, [field]: value }));
      clearTimeout(timers.current.get(field));
      timers.current.set(field, window.setTimeout(() => send(field, value), settleMs));
    },
    leave: (field: BuyerField) => {
      setVisited((all) => new Set(all).add(field));
      const draft = drafts[field];
      if (draft === undefined) return;
      // Sent already means that another tab may have changed it since.
      if (timers.current.has(field)) send(field, draft);
      if (problem(field, draft) === undefined) setDrafts(({ [field]: _, ...others }) => others);
    },
    /** Sends what is still being typed; gives the first field that is not in order. */
    finish: (): BuyerField | undefined => {
      setVisited(new Set(buyerFields));
      flush.current();
      return buyerFields.find((field) => problem(field, text(field)) !== undefined);
    },
  };
}
