package pgguard

import (
	"errors"
	"fmt"
	"strings"
)

// Names in the database.
const (
	// Setting holds the tenant of a transaction; outside of one it is unset or empty.
	Setting = "tenantguard.tenant"
	// Schema holds what the policies call.
	Schema = "tenantguard"
	// Owner owns the schema. Nobody logs in as it.
	Owner = "tenantguard_owner"
)

// Policies says what is to be protected.
type Policies struct {
	Tables []Table
	// Role is the application's; it is made without rights where it is missing and
	// may read and write the tables. With Strict, nobody may make temporary tables or
	// objects in a schema any more only because everybody may. Empty: privileges are
	// left as they are.
	Role string
	// Strict has the tenant signed, see Strict; without it a service that signs sees
	// no rows, and the other way round.
	Strict bool
}

// SQL is what a superuser runs, once or again: the schema, the role of its owner,
// and for each table two policies that hold for all roles and all statements. Its
// partitions and other children get the same, those that there are: after a new
// one it is run again. It warns of foreign keys between guarded tables that leave
// the tenant out, see the package. It is one transaction. PostgreSQL 15 or newer.
//
// Errors: no table at all; ErrName of the role.
func (p Policies) SQL() (string, error) {
	if len(p.Tables) == 0 {
		return "", errors.New("pgguard: no table to protect")
	}
	var b strings.Builder
	b.WriteString(head)
	if p.Strict {
		b.WriteString(strictFunction)
	} else {
		b.WriteString(plainFunction)
	}
	for _, t := range p.Tables {
		fmt.Fprintf(&b, tableSQL, replaceAll(t)...)
		fmt.Fprintf(&b, childrenSQL, replaceAll(t)...)
	}
	b.WriteString(foreignKeysSQL)
	if p.Role != "" {
		names, err := parseNames(p.Role)
		if err != nil || len(names) != 1 {
			return "", fmt.Errorf("%w of a role: %q", ErrName, p.Role)
		}
		p.grant(&b, names[0])
	}
	b.WriteString("\nCOMMIT;\n")
	return b.String(), nil
}

func replaceAll(t Table) []any {
	return []any{t.String(), t.Column(), literal(t.String()), literal(t.column)}
}

func (p Policies) grant(b *strings.Builder, role string) {
	fmt.Fprintf(b, roleSQL, literal(role), quote(role))
	for _, t := range p.Tables {
		fmt.Fprintf(b, grantSQL, t.String(), quote(role), quote(t.schema))
		fmt.Fprintf(b, childrenGrantSQL, literal(t.String()), literal(role))
	}
	if p.Strict {
		fmt.Fprintf(b, strictRoleSQL, literal(role))
	}
}

const head = `-- Rows of one tenant per transaction. Run by a superuser, as often as you like:
--   psql -v ON_ERROR_STOP=1 -f FILE
BEGIN;
SET LOCAL client_min_messages = warning;
SET LOCAL standard_conforming_strings = on;

-- Owns what the policies call; nobody logs in as it.
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'tenantguard_owner') THEN
    CREATE ROLE tenantguard_owner NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS;
  END IF;
  IF EXISTS (
    SELECT FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles o ON o.oid = n.nspowner
    WHERE n.nspname = 'tenantguard' AND o.rolname <> 'tenantguard_owner' AND NOT o.rolsuper) THEN
    RAISE EXCEPTION 'tenantguard: somebody else has made this schema, and may have left something in it: drop it first';
  END IF;
END
$$;
CREATE SCHEMA IF NOT EXISTS tenantguard AUTHORIZATION tenantguard_owner;
ALTER SCHEMA tenantguard OWNER TO tenantguard_owner;
DO $$
DECLARE
  who text;
BEGIN -- whatever default privileges have given
  FOR who IN
    SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::text END
    FROM pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) a WHERE n.nspname = 'tenantguard' AND a.grantee <> n.nspowner
  LOOP
    EXECUTE pg_catalog.format('REVOKE ALL ON SCHEMA tenantguard FROM %s CASCADE', who);
  END LOOP;
END
$$;
GRANT USAGE ON SCHEMA tenantguard TO PUBLIC;
`

const plainFunction = `
-- The tenant of this transaction; NULL, which equals nothing, outside of one.
CREATE OR REPLACE FUNCTION tenantguard.tenant() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
  SELECT nullif(pg_catalog.current_setting('tenantguard.tenant', true), '');
END;
ALTER FUNCTION tenantguard.tenant() OWNER TO tenantguard_owner;
GRANT EXECUTE ON FUNCTION tenantguard.tenant() TO PUBLIC;
`

// Both sides of the comparison are hashed once more with the key, so that the
// time it takes tells nothing about the signature that would be right. PL/pgSQL
// keeps the plan of its query from statement to statement, which SQL does not.
const strictFunction = `
-- The keys that signatures are checked by; for the owner only.
CREATE TABLE IF NOT EXISTS tenantguard.keys (
  id text PRIMARY KEY,
  inner_pad bytea NOT NULL CHECK (octet_length(inner_pad) = 64),
  outer_pad bytea NOT NULL CHECK (octet_length(outer_pad) = 64));
ALTER TABLE tenantguard.keys OWNER TO tenantguard_owner;
DO $$
DECLARE
  who text;
BEGIN -- whatever default privileges have given; who could read a key signs any tenant
  IF EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = 'tenantguard.keys'::pg_catalog.regclass)
    OR EXISTS (SELECT FROM pg_catalog.pg_rewrite WHERE ev_class = 'tenantguard.keys'::pg_catalog.regclass) THEN
    RAISE EXCEPTION 'tenantguard.keys: somebody has left a trigger or a rule: drop the table first';
  END IF;
  FOR who IN
    SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::text END
    FROM pg_catalog.pg_class c, LATERAL (
      SELECT g.grantee FROM pg_catalog.aclexplode(c.relacl) g
      UNION SELECT g.grantee FROM pg_catalog.pg_attribute t, pg_catalog.aclexplode(t.attacl) g WHERE t.attrelid = c.oid) a
    WHERE c.oid = 'tenantguard.keys'::pg_catalog.regclass AND a.grantee <> c.relowner
  LOOP
    EXECUTE pg_catalog.format('REVOKE ALL ON tenantguard.keys FROM %s CASCADE', who);
  END LOOP;
END
$$;

-- What a signature is bound to: the database, the connection and the moment at
-- which the transaction began.
CREATE OR REPLACE FUNCTION tenantguard.transaction() RETURNS text LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
  SELECT pg_catalog.concat_ws('|', 'tenantguard-2', pg_catalog.current_database(), pg_catalog.pg_backend_pid(),
    (extract(epoch FROM pg_catalog.transaction_timestamp()) * 1000000)::bigint);
END;
ALTER FUNCTION tenantguard.transaction() OWNER TO tenantguard_owner;
GRANT EXECUTE ON FUNCTION tenantguard.transaction() TO PUBLIC;

-- The tenant of this transaction, if its signature is good; else NULL.
CREATE OR REPLACE FUNCTION tenantguard.tenant() RETURNS text LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $tenant$
DECLARE
  setting text := current_setting('tenantguard.tenant', true);
  mac bytea := convert_to(split_part(setting, ':', 1), 'UTF8');
  tenant text := split_part(setting, ':', 2);
  message bytea := convert_to(tenantguard.transaction() || '|' || tenant, 'UTF8');
BEGIN
  IF tenant <> '' AND EXISTS (
    SELECT FROM tenantguard.keys k WHERE sha256(k.outer_pad || mac) =
      sha256(k.outer_pad || convert_to(encode(sha256(k.outer_pad || sha256(k.inner_pad || message)), 'hex'), 'UTF8'))) THEN
    RETURN tenant;
  END IF;
  RETURN NULL;
END
$tenant$;
ALTER FUNCTION tenantguard.tenant() OWNER TO tenantguard_owner;
GRANT EXECUTE ON FUNCTION tenantguard.tenant() TO PUBLIC;
`

// The subquery is evaluated once per statement, and an index serves the equality.
// The restrictive policy is there for the day on which somebody adds a permissive
// one, which would open what this one closes.
const tableSQL = `
DO $check$
BEGIN -- tenants are compared byte for byte
  IF NOT EXISTS (
    SELECT FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation
    WHERE a.attrelid = %[3]s::pg_catalog.regclass AND a.attname = %[4]s AND a.attnum > 0 AND NOT a.attisdropped
      AND a.atttypid IN ('text'::pg_catalog.regtype, 'varchar'::pg_catalog.regtype) AND coalesce(c.collisdeterministic, true)) THEN
    RAISE EXCEPTION '%%.%%: no column of type text with a deterministic collation', %[3]s, %[4]s;
  END IF;
END
$check$;
ALTER TABLE %[1]s ENABLE ROW LEVEL SECURITY;
ALTER TABLE %[1]s FORCE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS tenantguard ON %[1]s;
DROP POLICY IF EXISTS tenantguard_only ON %[1]s;
CREATE POLICY tenantguard ON %[1]s AS PERMISSIVE FOR ALL TO PUBLIC
  USING (%[2]s = (SELECT tenantguard.tenant())) WITH CHECK (%[2]s = (SELECT tenantguard.tenant()));
CREATE POLICY tenantguard_only ON %[1]s AS RESTRICTIVE FOR ALL TO PUBLIC
  USING (%[2]s = (SELECT tenantguard.tenant())) WITH CHECK (%[2]s = (SELECT tenantguard.tenant()));
`

const roleSQL = `
-- The application's role: no owner, nothing that goes round row security.
DO $role$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = %[1]s) THEN
    CREATE ROLE %[2]s LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
  END IF;
END
$role$;
`

const grantSQL = `GRANT USAGE ON SCHEMA %[3]s TO %[2]s;
REVOKE ALL ON %[1]s FROM %[2]s, PUBLIC;
GRANT SELECT, INSERT, UPDATE, DELETE ON %[1]s TO %[2]s;
`

// strictRoleSQL takes away what Strict.CheckRole refuses, where a database gives it
// to all, as each one does with temporary tables, and those from before PostgreSQL
// 15 with the schema public.
const strictRoleSQL = `
-- The role makes nothing that could stand in front of what others call, and
-- nobody does only because everybody may.
DO $$
DECLARE
  place record;
BEGIN
  EXECUTE pg_catalog.format('REVOKE CREATE, TEMPORARY ON DATABASE %%I FROM PUBLIC, %%I', pg_catalog.current_database(), %[1]s);
  FOR place IN
    SELECT n.nspname FROM pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) a
    WHERE a.privilege_type = 'CREATE' AND (a.grantee = 0 OR a.grantee = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = %[1]s))
      AND n.nspowner <> a.grantee
  LOOP
    EXECUTE pg_catalog.format('REVOKE CREATE ON SCHEMA %%I FROM PUBLIC, %%I', place.nspname, %[1]s);
  END LOOP;
END
$$;
`
