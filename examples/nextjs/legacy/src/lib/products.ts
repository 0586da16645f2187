export interface Pack {
  id: string;
  name: string;
  label: string;
  price: number;
}

export interface Offer {
  productCode: string;
  name: string;
  description: string;
  bottles: number;
  amount: number;
}

export const packs: readonly Pack[] = [
  { id: 'fitspresso-1-pack', name: 'Fitspresso 1 Bottle Pack', label: '1 bottle', price: 79 },
  { id: 'fitspresso-3-pack', name: 'Fitspresso 3 Bottle Pack', label: '3 bottles', price: 177 },
  { id: 'fitspresso-6-pack', name: 'Fitspresso 6 Bottle Pack', label: '6 bottles', price: 294 },
];

export const offersByStep: Readonly<Record<1 | 2, readonly Offer[]>> = {
  1: [
    {
      productCode: 'RC6',
      name: 'RelaxCalm, 6 bottles',
      description: 'Six bottles at a third off, with this order only.',
      bottles: 6,
      amount: 199,
    },
    {
      productCode: 'RC12',
      name: 'RelaxCalm, 12 bottles',
      description: 'Twelve bottles at half price, with this order only.',
      bottles: 12,
      amount: 296,
    },
  ],
  2: [
    {
      productCode: 'SG6',
      name: 'SleepGuard, 6 bottles',
      description: 'Six bottles for quieter nights, with this order only.',
      bottles: 6,
      amount: 149,
    },
  ],
};

export function offerName(productCode: string): string {
  const offer = [...offersByStep[1], ...offersByStep[2]].find((candidate) => candidate.productCode === productCode);
  return offer?.name ?? productCode;
}

export const formatPrice = (dollars: number): string =>
  new Intl.NumberFormat('en-US', { style: 'currency', currency: 'USD' }).format(dollars);
