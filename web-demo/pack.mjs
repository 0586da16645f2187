// Packs the texts of the built page with Brotli, each beside itself, for the server that has them built in. Maps of sources stay out of it.
import { readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { brotliCompressSync, constants } from 'node:zlib';

const folder = join(import.meta.dirname, 'dist');
for (const entry of readdirSync(folder, { recursive: true })) {
  if (entry.endsWith('.map')) rmSync(join(folder, entry));
  if (!/\.(css|html|js|svg|wasm)$/.test(entry)) continue;
  const file = join(folder, entry);
  const bytes = readFileSync(file);
  const packed = brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY } });
  if (packed.length < bytes.length) writeFileSync(`${file}.br`, packed);
}
