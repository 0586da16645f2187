import type { Customer } from '../../generated/types.js';
import type { Session } from '../server/types.js';
import type { BillingInfo, CustomerInfo, ShippingInfo } from './shapes.js';
import { isObject, leftOf, present, textIn } from './values.js';

/** The buyer as legacy code gives them: flat, and up to two addresses by themselves. */
export interface Buyer {
  info: object;
  billing: ShippingInfo | undefined;
  shipping: ShippingInfo | undefined;
}

/** The buyer of a session, in the places of a row. */
export interface BuyerOfRow {
  customer_info: CustomerInfo;
  billingInfo?: ShippingInfo;
  shippingInfo?: ShippingInfo;
}

const NAMES = { firstName: 'first_name', lastName: 'last_name' } as const;
const PLACE = { address: 'address', city: 'city', state: 'state', zipCode: 'zip_code', country: 'country' } as const;
const INFO = { ...NAMES, phone: 'phone', ...PLACE } as const;

/**
 * The address beside the name is where the goods go, which is what tax is worked out from. What it does not say of the bill's and the
 * goods' addresses, is in the metadata.
 */
export function buyerOfRow(customer: Session['customer']): BuyerOfRow {
  const { firstName, lastName, phone } = customer;
  const flat = filled(placeIn(customer[flatAddress(customer)] ?? {}));
  const [billing, shipping] = [given(customer.billing), given(customer.shipping)];
  const saysMore = (address: object) => isNamed(address) || !isSamePlace(address, flat ?? {});
  return {
    customer_info: present({ ...flat, firstName, lastName, phone }),
    // With a bill beside it, the flat address is that of the goods; else it is that of both.
    ...(billing && (shipping || saysMore(billing)) && { billingInfo: present({ ...billing }) }),
    ...(shipping && (!billing || isSamePlace(billing, shipping) || saysMore(shipping)) && { shippingInfo: present({ ...shipping }) }),
  };
}

/** Which address a row has beside the buyer's name: the one that decides on the tax. */
export function flatAddress({ billing, shipping }: Session['customer']): 'billing' | 'shipping' {
  return shipping && (shipping.state != null || !billing) ? 'shipping' : 'billing';
}

/** What a customer is made or changed with; `other` is an address that there was no place for. */
export interface ForCustomer {
  customer: Customer;
  other?: BillingInfo;
}

/** The customer of a new session. */
export function newCustomer({ info, billing, shipping }: Buyer): ForCustomer {
  const flat = filled(placeIn(info));
  const own = { ...textsIn(info, NAMES), ...textsIn(info, { phone: 'phone' }) };
  if (!billing) {
    const isOne = flat && shipping && isSamePlace(flat, shipping);
    return { customer: present({ ...own, billing: isOne ? undefined : flat, shipping }) };
  }
  const isOther = flat && !isSamePlace(flat, billing) ? flat : undefined;
  const isLeft = isOther && shipping && !isSamePlace(isOther, shipping);
  return { customer: present({ ...own, billing, shipping: shipping ?? isOther }), ...(isLeft && { other: isOther }) };
}

/** What changes the customer so that the row's buyer is as it is asked for. What is not named stays; an empty text removes. */
export function customerPatch(customer: Session['customer'], { info, billing, shipping }: Buyer): ForCustomer {
  const now = { billing: given(customer.billing), shipping: given(customer.shipping) };
  const flat = placeIn(info);
  const own = { ...textsIn(info, NAMES), ...textsIn(info, { phone: 'phone' }) };
  if (!now.billing && !now.shipping) {
    const { customer, ...others } = newCustomer({ info, billing, shipping });
    return { customer: { ...own, ...customer }, ...others };
  }
  if (now.shipping || !billing) {
    // The flat address is the one that it was read from. Where both are named, that counts which is another one than it was.
    const to = flatAddress(customer);
    const [beside, others] = to === 'shipping' ? [shipping, { billing }] : [billing, { shipping }];
    const changed = beside && (flat ? { ...flat, ...differing(beside, now[to] ?? {}) } : beside);
    return { customer: present({ ...own, ...others, [to]: changed ?? flat }) };
  }
  const goods = { ...placeIn(now.billing!), ...flat };
  if (isSamePlace(goods, billing)) return { customer: present({ ...own, billing, shipping }) };
  // From here on the bill goes elsewhere: what was both is where the goods go.
  const emptied = Object.fromEntries(Object.keys(placeIn(now.billing!) ?? {}).map((name) => [name, '']));
  return { customer: present({ ...own, billing: { ...emptied, ...billing }, shipping: filled({ ...goods, ...shipping }) }) };
}

/** The address in an object, with names where it has any; nothing where there is none of its fields. */
export function addressIn(value: unknown): ShippingInfo | undefined {
  return isObject(value) ? filled({ ...textsIn(value, NAMES), ...textsIn(value, PLACE) }) : undefined;
}

/** What an object says beside an address. */
export function besideAddress(value: object): Record<string, unknown> {
  return leftOf(value, { ...NAMES, ...PLACE });
}

/** What the flat buyer says that a session has no place for. */
export function besideBuyer(info: object): Record<string, unknown> {
  return leftOf(info, INFO);
}

/** Whether a part of `part` is not so in `whole`. */
export function differs(part: object, whole: object): boolean {
  return Object.keys(differing(part, whole)).length > 0;
}

function differing(part: object, whole: object): Record<string, unknown> {
  const others = Object.entries(part).filter(([name, value]) => {
    const now = (whole as Record<string, unknown>)[name] ?? '';
    return isObject(value) ? !isObject(now) || differs(value, now) : value !== now;
  });
  return Object.fromEntries(others);
}

function placeIn(object: object): BillingInfo | undefined {
  const place = textsIn(object, PLACE);
  return Object.keys(place).length > 0 ? place : undefined;
}

function isSamePlace(one: object, other: object): boolean {
  const [first, second] = [textsIn(one, PLACE), textsIn(other, PLACE)];
  return !differs(first, second) && !differs(second, first);
}

function textsIn(object: object, fields: Readonly<Record<string, string>>): Record<string, string> {
  return present(Object.fromEntries(Object.entries(fields).map(([camel, snake]) => [camel, textIn(object, camel, snake)])));
}

/** Without what is empty. */
function filled<T extends object>(object: T | undefined): T | undefined {
  const entries = Object.entries(object ?? {}).filter(([, value]) => value !== '');
  return entries.length > 0 ? (Object.fromEntries(entries) as T) : undefined;
}

/** An address that says nothing is none. */
function given<T extends object>(address: T | null | undefined): T | undefined {
  return address && (isNamed(address) || filled(placeIn(address))) ? address : undefined;
}

function isNamed(address: object): boolean {
  const { firstName, lastName } = address as { firstName?: unknown; lastName?: unknown };
  return firstName != null || lastName != null;
}
