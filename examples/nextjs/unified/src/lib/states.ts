export const states: readonly (readonly [code: string, name: string])[] = [
  ['CA', 'California'],
  ['FL', 'Florida'],
  ['NY', 'New York'],
  ['OR', 'Oregon'],
  ['TX', 'Texas'],
  ['WA', 'Washington'],
];
