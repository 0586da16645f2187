// The legacy upsell request, rebuilt from its analysis: `node legacy-upsell.mjs DATABASE-URL`.
//
// Three look-ups for each request, as it was: the JWT cookie is verified, the process's Map is asked and refreshed, and the
// database row is read, checked for its expiry by hand, and written back as a whole.
import { createServer } from 'node:http';
import jwt from 'jsonwebtoken';
import pg from 'pg';

const SECRET = 'for the benchmark only';
const pool = new pg.Pool({ connectionString: process.argv[2], max: 10 });
await pool.query(`CREATE TABLE IF NOT EXISTS funnel_sessions (
  id TEXT PRIMARY KEY, email TEXT, status TEXT NOT NULL, current_step TEXT, products JSONB, amount NUMERIC, upsells JSONB,
  metadata JSONB, created_at TIMESTAMPTZ NOT NULL, updated_at TIMESTAMPTZ NOT NULL, expires_at TIMESTAMPTZ NOT NULL)`);

const sessionCache = new Map();

async function begin() {
  const id = `ws_${Date.now().toString(36)}_${Math.random().toString(36).slice(2)}`;
  await pool.query(
    `INSERT INTO funnel_sessions VALUES ($1, $2, 'completed', 'upsell-1', $3, 294, '[]', '{}', now(), now(), now() + interval '24 hours')`,
    [id, 'ada@example.com', JSON.stringify([{ id: 'fitspresso-6-pack', quantity: 1, price: 294 }])],
  );
  const token = jwt.sign({ sessionId: id, email: 'ada@example.com', state: 'upsell-1' }, SECRET, { expiresIn: '30m' });
  sessionCache.set(id, { id, email: 'ada@example.com', createdAt: Date.now() });
  return token;
}

async function acceptUpsell(request) {
  const cookie = /upsell_session=([^;]+)/.exec(request.headers.cookie ?? '')?.[1];
  const claims = jwt.verify(cookie, SECRET);
  const cached = sessionCache.get(claims.sessionId) ?? { id: claims.sessionId, createdAt: Date.now() };
  const { rows } = await pool.query('SELECT * FROM funnel_sessions WHERE id = $1', [claims.sessionId]);
  const row = rows[0];
  if (!row || row.expires_at < new Date()) {
    return { status: 410 };
  }
  const upsells = row.upsells.some((upsell) => upsell.code === 'RC6')
    ? row.upsells
    : [...row.upsells, { code: 'RC6', price: 199, accepted: true }];
  const { rows: written } = await pool.query(
    'UPDATE funnel_sessions SET upsells = $2, current_step = $3, updated_at = now() WHERE id = $1 RETURNING *',
    [claims.sessionId, JSON.stringify(upsells), 'upsell-2'],
  );
  sessionCache.set(claims.sessionId, { ...cached, upsells, lastAccess: Date.now() });
  const token = jwt.sign({ sessionId: row.id, email: row.email, state: 'upsell-2' }, SECRET, { expiresIn: '30m' });
  return { status: 200, body: written[0], cookie: `upsell_session=${token}; HttpOnly; Path=/` };
}

const server = createServer(async (request, response) => {
  for await (const _ of request);
  try {
    if (request.url === '/begin') {
      const token = await begin();
      response.setHeader('set-cookie', `upsell_session=${token}; HttpOnly; Path=/`).end('begun');
      return;
    }
    const { status, body, cookie } = await acceptUpsell(request);
    if (cookie) response.setHeader('set-cookie', cookie);
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body ?? {}));
  } catch (error) {
    response.writeHead(500).end(String(error));
  }
});
server.listen(0, '127.0.0.1', () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
