// What a transaction of one tenant leaves on the pool's one connection, said as JSON.
const { Token } = await import(process.env.EXAMPLE + "/tokens.mjs");
const { withTenant } = await import(process.env.EXAMPLE + "/database.mjs");
const { default: pg } = await import(process.env.EXAMPLE + "/node_modules/pg/lib/index.js");

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 1 });
const now = Date.now() / 1000;
const token = (exp) => new Token({ tenant: "tenant-0", iat: now - 60, exp }, () => now);
const good = token(now + 60);
const count = async (db) => Number((await db.query("SELECT count(*) FROM shop.orders")).rows[0].count);
const error = (promise) => promise.then(() => "", (e) => e.name + " " + (e.reason ?? ""));

const said = { inside: await withTenant(pool, good, count), outside: await count(pool) };
said.swallowed = await error(withTenant(pool, good, (db) => db.query("SELECT 1/0").catch(() => {})));
said.failed = await error(withTenant(pool, good, () => Promise.reject(new RangeError("its own"))));
said.after = await count(pool);
said.ended = await withTenant(pool, good, async (db) => { await db.query("COMMIT"); return count(db); }).catch(() => 0);
said.unverified = await error(withTenant(pool, { tenant: "tenant-0", alive() {} }, count));
said.expired = await error(withTenant(pool, token(now - 31), count));
// One of two statements fails, and the other goes on meanwhile: it comes when the connection is the next request's.
let go, late;
await withTenant(pool, good, (db) => Promise.all([
  db.query("SELECT 1/0"), late = new Promise((resolve) => { go = resolve; }).then(() => count(db)),
])).catch(() => {});
said.late = await withTenant(pool, good, () => { go(); return error(late); });
said.cursor = await error(withTenant(pool, good, (db) => db.query({ submit() {} })));
console.log(JSON.stringify(said));
await pool.end();
