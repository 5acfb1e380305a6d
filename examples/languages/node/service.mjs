// A service with orders of many tenants. No statement of it names the tenant in a WHERE.
//   ISSUER=https://broker.example AUDIENCE=orders DATABASE_URL=postgres://… PORT=8080 node service.mjs
import { createServer } from "node:http";
import pg from "pg";
import { checkRole, withTenant } from "./database.mjs";
import { Answer, guard } from "./guard.mjs";
import { tokenVerifier } from "./tokens.mjs";

const { ISSUER: issuer, AUDIENCE: audience, DATABASE_URL: connectionString, PORT: port = "0" } = process.env;
const pool = new pg.Pool({ connectionString, max: 4 });
pool.on("error", (e) => console.error(e.message)); // of a connection that nobody uses: the next one is another
await checkRole(pool);

const protect = guard({ verify: tokenVerifier({ issuer, audience }), log: (l) => console.error(JSON.stringify(l)) });
const path = (req) => /^\/t\/([A-Za-z0-9_.-]+)\/orders(?:\/(\d{1,9}))?(?:\?|$)/.exec(req.url) ?? [];
const inPath = (req) => path(req)[1];
const notFound = () => new Answer("not_found", 404, "not_found", "not found"); // another tenant's is answered like nobody's

const read = protect({ scopes: ["orders:read"], tenant: inPath }, async (req, res, token) => {
  const [, , id] = path(req);
  const found = await withTenant(pool, token, (db) => id === undefined
    ? db.query("SELECT id, note FROM shop.orders ORDER BY id")
    : db.query("SELECT id, note FROM shop.orders WHERE id = $1", [id]));
  if (id !== undefined && found.rows.length === 0) throw notFound();
  send(res, found.rows.map((row) => ({ id: Number(row.id), note: row.note })));
});

const write = protect({ scopes: ["orders:write"], tenant: inPath }, async (req, res, token) => {
  const [, , id] = path(req);
  const note = await body(req, 4096);
  const changed = await withTenant(pool, token, (db) => db.query("UPDATE shop.orders SET note = $2 WHERE id = $1", [id, note]));
  if (changed.rowCount === 0) throw notFound();
  send(res, [{ id: Number(id), note }]);
});

async function body(req, limit) {
  let text = "";
  for await (const chunk of req.setEncoding("utf8")) {
    text += chunk;
    if (text.length > limit) throw new Answer("too_long", 413, "too_long", "the body is too long");
  }
  return text;
}

function send(res, orders) {
  res.writeHead(200, { "Content-Type": "application/json" });
  res.end(JSON.stringify(orders));
}

const none = (req, res) => new Answer("method", 405, "method_not_allowed", "GET or PUT").write(res);
const server = createServer((req, res) => ({ GET: read, PUT: write }[req.method] ?? none)(req, res));
server.listen(Number(port), "127.0.0.1", () => console.log(`listening on 127.0.0.1:${server.address().port}`));
