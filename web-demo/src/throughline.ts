/** The one place that imports the package. */
import * as throughline from 'throughline';

import type { OpenSession } from './throughline-api';

export type * from './throughline-api';

export const openSession: OpenSession = (options) =>
  (throughline as unknown as { openSession: OpenSession }).openSession(options);
