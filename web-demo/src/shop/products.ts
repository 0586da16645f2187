/** What the shop tells about a product beside the catalogue's name and price. */
export interface Story {
  /** How many bottles the picture shows. */
  bottles: number;
  look: 'pine' | 'dusk' | 'plum';
  label: string;
  title?: string;
  note: string;
}

const stories: Readonly<Record<string, Story>> = {
  'fitspresso-1-pack': { bottles: 1, look: 'pine', label: 'FIT', title: 'One bottle', note: '30 mornings, to try it' },
  'fitspresso-3-pack': { bottles: 3, look: 'pine', label: 'FIT', title: 'Three bottles', note: '90 mornings, the usual choice' },
  'fitspresso-6-pack': { bottles: 6, look: 'pine', label: 'FIT', title: 'Six bottles', note: '180 mornings, the lowest price each' },
  'relax-calm-6': { bottles: 6, look: 'dusk', label: 'CALM', note: 'For the evening cup' },
  'relax-calm-12': { bottles: 6, look: 'dusk', label: 'CALM', note: 'For a year of evening cups' },
  'sleep-guard-6': { bottles: 6, look: 'plum', label: 'SLEEP', note: 'For the hour after the last cup' },
};

/** A product that the shop has no story for shows its name alone. */
export function story(productId: string): Story {
  return stories[productId] ?? { bottles: 1, look: 'pine', label: 'SLOW', note: '' };
}
