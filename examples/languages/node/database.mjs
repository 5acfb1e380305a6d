// Transactions of PostgreSQL that see one tenant's rows, under the policies of pgguard
// (docs/guides/any-language.md). pool is a Pool of the package pg.
import { Token } from "./tokens.mjs";

/**
 * What work is handed. Once the transaction ends it takes no statement: the connection is another request's then,
 * perhaps another tenant's. Only texts with values, since a cursor would outlive the check.
 */
class Transaction {
  #client;

  constructor(client) { this.#client = client; }

  async query(text, values) {
    if (typeof text !== "string") throw new TypeError("a statement is a text, with values");
    if (!this.#client) throw new Error("the transaction is over");
    return this.#client.query(text, values);
  }

  end() { this.#client = undefined; }
}

/**
 * withTenant runs work(db) in a transaction whose rows are those of the token's tenant. The setting ends
 * with the transaction, so that the next user of the connection sees nothing: also behind PgBouncer in
 * transaction mode.
 */
export async function withTenant(pool, token, work) {
  if (!(token instanceof Token)) throw new TypeError("a verified token is needed");
  token.alive();
  const client = await pool.connect();
  const db = new Transaction(client);
  let broken;
  try {
    await client.query("BEGIN");
    await client.query("SELECT pg_catalog.set_config('tenantguard.tenant', $1, true)", [token.tenant]);
    const result = await work(db);
    db.end();
    const { command } = await client.query("COMMIT");
    if (command !== "COMMIT") throw new Error("the transaction had failed and was rolled back");
    return result;
  } catch (e) {
    db.end();
    await client.query("ROLLBACK").catch((why) => { broken = why; });
    throw e;
  } finally {
    client.release(broken); // one that can't roll back is closed, which ends its transaction
  }
}

/** checkRole throws where row security does not bind the pool's user. Call it at start. */
export async function checkRole(pool) {
  const { rows: [role] } = await pool.query(`
    SELECT current_user AS name, EXISTS (
      SELECT FROM pg_catalog.pg_roles r WHERE pg_catalog.pg_has_role(r.oid, 'MEMBER') AND (
        r.rolsuper OR r.rolbypassrls OR r.rolcreaterole OR r.rolreplication OR EXISTS (
          SELECT FROM pg_catalog.pg_class c WHERE c.relowner = r.oid AND c.relkind IN ('r', 'p')))) AS unbound`);
  if (role.unbound) throw new Error(`${role.name} goes round row security, or owns tables`);
}
