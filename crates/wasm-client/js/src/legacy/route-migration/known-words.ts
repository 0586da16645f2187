/**
 * Words of a checkout's program: of its statuses, steps, errors and addresses. What is put together of them alone is nobody's name. Those
 * of the server's own contract are among them.
 */
const KNOWN = new Set(
  (
    // The contract's.
    'accept accepted access adjustments allowed already amount api at audience awaiting bad begin begun body browser buyer charge ' +
    'charged claim claimed claims client command compare completed confirm confirmation confirmed conflict content cookie cookies coupon ' +
    'create created credential cursor customer decline declined deep deleted done due email encoding entered erase erased events ' +
    'exceeded exists expire expired expires extend extended fail failed failing field fields forbidden forged form found funnel gap go ' +
    'gone hand handed handoff headers held hold idempotency if import in input internal invalid items json key keys lapsed large legacy ' +
    'lend lent lifetime limited long made malformed many match meant media metadata method migration mismatch missing much not nothing ' +
    'off offer offered old on only operator origin out overloaded own paid payment payments pending permanent permitted price privacy ' +
    'processing product progress public purpose quantity query rate read record recorded references refused refute refuted rejected ' +
    'relaxed request retry reused revoke revoked scope secret sequence service session sessions set shadow stale step store streams ' +
    'strict subprotocol system terminal timed to token too type unavailable unchanged under unknown unneeded unreadable unsupported ' +
    'updated upsell url used valid version way webhook webhooks working write wrong yet ' +
    // Of shops and their addresses.
    'abandoned account active add added address admin app apply applied approved archived authorized authorised available back ' +
    'backordered billing bundle buy cancel canceled cancelled card cart catalog catalogue category change changed checkout close closed ' +
    'collection complete contact continue cross customers delete deliver delivered delivery details disabled discount download downsell ' +
    'draft edit empty enabled end ended error errors exit express failure faq final finish finished free fulfilled gift guest help ' +
    'history home http https id inactive index info initial initiated inventory invoice item landing lead list live locked login logout ' +
    'lost main message mobile net network new next no none notification offers ok one online open option options order ordered orders ' +
    'overview page pages partial partially pay pickup place placed plan plans policy post preview previous process processed products ' +
    'profile promo promotion purchase purchased quote ready receipt received recurring refund refunded refunds register removed renew ' +
    'renewed reserved result results return returned returns review route save saved search secure select selected sent server settings ' +
    'settled ship shipped shipping shop sign signed signup skip skipped sold special start started state status steps stock stopped ' +
    'subscribe subscribed subscription success successful summary support taken tax terms test thank thanks this time trial two ' +
    'unauthorized unpaid unshipped up update upsells user users validate validation variant verified verify view visit void voided wait ' +
    'waiting web welcome yes you your de en es eu fr it uk us affiliate direct facebook google instagram newsletter organic referral tiktok ' +
    // Of payments and what goes wrong with them.
    'authentication authorization balance bank blocked call cards challenge connection credit crypto currency cvc cvv database debit do ' +
    'duplicate exception exceed expiry fraud fraudulent funds gateway generic honor incorrect insufficient issuer limit merchant number ' +
    'paypal permission reason reenter required requires security stolen threw timeout transaction transfer transient unsuccessful vault wallet'
  ).split(' '),
);

/** Parts of what programmers put together: words, and numbers. */
const PARTS = /[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+/g;

/** Whether it is `payment_processing`, `upsell-1`, `offerNotMade` or `PAYMENT_DECLINED`, and no name, sentence, number or token. */
export function isKnownWord(text: string): boolean {
  // A capital and small letters are how names are written.
  if (!/^[\w.:-]{1,60}$/.test(text) || /^[A-Z][a-z]/.test(text) || text.replace(/\D/g, '').length > 4) return false;
  const parts: string[] = text.match(PARTS) ?? [];
  return /[a-z]/i.test(text) && parts.every((part) => (/^\d/.test(part) ? part.length <= 2 : KNOWN.has(part.toLowerCase())));
}
