import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

export default defineConfig({
  plugins: [react()],
  // It finds its files wherever it is put: alone, or below /demo of the server.
  base: './',
  // The package is a link to a folder that has no React above it.
  resolve: { dedupe: ['react'] },
  build: { target: 'es2022', sourcemap: true },
  server: {
    // The package lies outside this folder while it is developed in the same repository.
    fs: { allow: ['.', '../target/npm/throughline'] },
  },
});
