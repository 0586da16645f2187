import type { NextConfig } from 'next';

const config: NextConfig = {
  reactStrictMode: true,
  poweredByHeader: false,
  // The repository has lock files of other projects further up.
  turbopack: { root: import.meta.dirname },
};

export default config;
