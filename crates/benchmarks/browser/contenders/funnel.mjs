// What the buyer does in every contender, from the first offer to the end of the funnel, in two changes: accepts an offer and
// goes to the next step.
export const goOn = [
  { accept: 'RC6', step: 'upsell-2' },
  { accept: 'SG6', step: 'success' },
];

export const prices = { RC6: 19900, SG6: 14900 };

/** The session at the first offer, as a plain object. */
export const atFirstOffer = ({ session }) => structuredClone(session);
