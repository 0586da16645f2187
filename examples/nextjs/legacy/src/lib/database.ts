import { Pool, types, type QueryResultRow } from 'pg';

import { countQuery } from './request-counts';

// Times are ISO strings in rows, as everywhere in the API.
types.setTypeParser(types.builtins.TIMESTAMPTZ, (value) => new Date(value).toISOString());

const pool = new Pool({
  connectionString: process.env.DATABASE_URL,
  max: 10,
  connectionTimeoutMillis: 5_000,
});

pool.on('error', (error) => {
  console.error('Idle database connection failed:', error.message);
});

export async function query<Row extends QueryResultRow>(text: string, values: unknown[] = []): Promise<Row[]> {
  countQuery();
  const result = await pool.query<Row>(text, values);
  return result.rows;
}
