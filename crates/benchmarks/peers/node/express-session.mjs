// express-session with connect-redis: `node express-session.mjs FILE REDIS-URL`.
//
// `POST /` begins a session that holds the file's JSON, `GET /` answers with it.
import { readFileSync } from 'node:fs';
import { RedisStore } from 'connect-redis';
import express from 'express';
import session from 'express-session';
import { createClient } from 'redis';

const [file, url] = process.argv.slice(2);
const content = JSON.parse(readFileSync(file, 'utf8'));
const client = createClient({ url });
await client.connect();

const app = express();
app.use(
  session({
    store: new RedisStore({ client, prefix: 'express:' }),
    secret: 'for the benchmark only',
    resave: false,
    saveUninitialized: false,
  }),
);
app.post('/', (request, response) => {
  request.session.content = content;
  response.send('begun');
});
app.get('/', (request, response) => response.json(request.session.content ?? null));
const server = app.listen(0, '127.0.0.1', () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
