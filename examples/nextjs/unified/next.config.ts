import { join } from 'node:path';

import type { NextConfig } from 'next';

const config: NextConfig = {
  reactStrictMode: true,
  poweredByHeader: false,
  // The repository's root: the package `throughline` is a link to its folder `target`. A shop of its own leaves this out.
  turbopack: { root: join(import.meta.dirname, '../../..') },
};

export default config;
