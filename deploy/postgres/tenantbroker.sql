-- What a database needs so that users from Vault see one tenant's rows only.
-- Run it as a superuser, in each database, as often as you like:
--
--   psql -v ON_ERROR_STOP=1 -d orders -f tenantbroker.sql
--
-- PostgreSQL 14 or newer. README.md says how to protect a table, and what stays
-- outside of row security. Everything runs in one transaction.
BEGIN;
SET LOCAL client_min_messages = warning;

-- tenantbroker_owner owns the objects and makes roles; nobody can log in as it.
-- tenantbroker_vault is who Vault connects as. It can call four functions, and
-- make no role but a tenant's short-lived user.
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'tenantbroker_owner') THEN
    CREATE ROLE tenantbroker_owner NOLOGIN CREATEROLE NOSUPERUSER NOCREATEDB NOBYPASSRLS;
  END IF;
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'tenantbroker_vault') THEN
    CREATE ROLE tenantbroker_vault LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS;
  END IF;
END
$$;

GRANT pg_signal_backend TO tenantbroker_owner; -- to end a user's sessions before anything that they could block

CREATE SCHEMA IF NOT EXISTS tenantbroker AUTHORIZATION tenantbroker_owner;
SET LOCAL ROLE tenantbroker_owner;

GRANT USAGE ON SCHEMA tenantbroker TO PUBLIC;

-- The salt keeps the names of tenants' roles, which everybody can list, from
-- telling which tenants there are.
CREATE TABLE IF NOT EXISTS tenantbroker.salt (
  one  boolean PRIMARY KEY DEFAULT true CHECK (one),
  salt bytea NOT NULL
);
INSERT INTO tenantbroker.salt (salt)
VALUES (sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8')))
ON CONFLICT DO NOTHING;

-- One role per tenant that ever had a lease, made by the first one.
CREATE TABLE IF NOT EXISTS tenantbroker.tenants (
  role   name PRIMARY KEY,
  tenant text COLLATE "C" NOT NULL UNIQUE
);

-- The roles that a tenant's user may be given: what it can do with tables.
CREATE TABLE IF NOT EXISTS tenantbroker.bases (
  role name PRIMARY KEY
);

-- Users that have ended, and could not be dropped yet. They have no rights.
CREATE TABLE IF NOT EXISTS tenantbroker.leftovers (
  id    oid PRIMARY KEY,
  since timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE tenantbroker.leftovers ADD COLUMN IF NOT EXISTS tried timestamptz NOT NULL DEFAULT now();
ALTER TABLE tenantbroker.leftovers ADD COLUMN IF NOT EXISTS tenant text COLLATE "C"; -- whose it was; NULL: not known
CREATE INDEX IF NOT EXISTS leftovers_tenant ON tenantbroker.leftovers (tenant);

-- The tenant of this session, NULL without one. It asks who logged in, which
-- SET ROLE and settings don't change; for membership as it is now, whatever
-- snapshot the transaction has; and for an end date that is not over, so that a
-- session which outlives its lease sees nothing.
CREATE OR REPLACE FUNCTION tenantbroker.session_tenant() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT CASE WHEN pg_catalog.count(DISTINCT t.tenant) OPERATOR(pg_catalog.=) 1 THEN pg_catalog.min(t.tenant) END
  FROM pg_catalog.pg_roles u
  JOIN pg_catalog.pg_auth_members m ON m.member OPERATOR(pg_catalog.=) u.oid
  JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) m.roleid
  JOIN tenantbroker.tenants t ON t.role OPERATOR(pg_catalog.=) r.rolname
  WHERE u.rolname OPERATOR(pg_catalog.=) SESSION_USER
    AND u.rolvaliduntil OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()
    AND pg_catalog.pg_has_role(u.oid, r.oid, 'MEMBER');
END;

-- is_user: a login of ours, made by create_user in this database.
CREATE OR REPLACE FUNCTION tenantbroker.is_user(username text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT EXISTS (
    SELECT FROM pg_catalog.pg_roles u
    JOIN pg_catalog.pg_auth_members m ON m.member = u.oid
    JOIN pg_catalog.pg_roles r ON r.oid = m.roleid
    JOIN tenantbroker.tenants t ON t.role = r.rolname
    WHERE u.rolname = username AND u.rolvaliduntil IS NOT NULL
      AND NOT (u.rolsuper OR u.rolcreaterole OR u.rolcreatedb OR u.rolbypassrls OR u.rolreplication));
END;

-- tenant_role returns the role of a tenant and makes it if there is none yet.
CREATE OR REPLACE FUNCTION tenantbroker.tenant_role(tenant text) RETURNS name
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  role_name name;
BEGIN
  IF tenant IS NULL OR tenant !~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$' OR lower(tenant) = 'system' THEN
    RAISE EXCEPTION 'not a tenant';
  END IF;
  SELECT t.role INTO role_name FROM tenantbroker.tenants t WHERE t.tenant = tenant_role.tenant;
  IF FOUND AND EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
    RETURN role_name;
  END IF;
  -- One at a time makes a role. Not by an advisory lock, which any session may take.
  LOCK TABLE tenantbroker.tenants IN SHARE ROW EXCLUSIVE MODE;
  SELECT 'tb_' || left(encode(sha256(s.salt || convert_to(tenant_role.tenant, 'UTF8')), 'hex'), 48)
    INTO STRICT role_name FROM tenantbroker.salt s;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
    EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS', role_name);
  END IF;
  INSERT INTO tenantbroker.tenants AS t (role, tenant) VALUES (role_name, tenant_role.tenant) ON CONFLICT DO NOTHING;
  RETURN role_name;
END
$$;

-- own_leftovers names the ended users of a tenant that can't be dropped by their
-- own doing: they own something, in whatever database, or left a transaction
-- prepared. What others gave them, or hold, is not the tenant's: by counting it
-- one tenant could keep another from getting users.
CREATE OR REPLACE FUNCTION tenantbroker.own_leftovers(tenant text) RETURNS SETOF name
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT u.rolname FROM tenantbroker.leftovers l JOIN pg_roles u ON u.oid = l.id
  WHERE l.tenant = own_leftovers.tenant AND (
    EXISTS (SELECT FROM pg_shdepend d WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = u.oid AND d.deptype = 'o'
      AND d.classid <> 'pg_user_mapping'::regclass) -- which who owns a foreign server makes for anybody
    OR EXISTS (SELECT FROM pg_prepared_xacts x WHERE x.owner = u.rolname));
END;

CREATE OR REPLACE FUNCTION tenantbroker.leftovers_of(tenant text) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT count(*) FROM tenantbroker.own_leftovers(leftovers_of.tenant);
END;

-- max_leftovers is how many of them a tenant may have and still get users: what
-- it leaves behind is then these, and those that it had when it got there.
CREATE OR REPLACE FUNCTION tenantbroker.max_leftovers() RETURNS integer
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT 20;
END;

-- many_leftovers is from how many leftovers on, of all tenants and by whosever
-- doing, check says so. They keep nobody from getting users.
CREATE OR REPLACE FUNCTION tenantbroker.many_leftovers() RETURNS integer
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT 100;
END;

-- When make_room last tried: in a sequence, since a refusal undoes all else.
CREATE SEQUENCE IF NOT EXISTS tenantbroker.made_room;

-- make_room reports whether a tenant has few enough leftovers to get a user.
-- From one that has not it removes some until it has, and gives up with the
-- second that can't be removed; this once in ten seconds, since it takes the
-- time of locks, in which Vault makes nobody's users.
CREATE OR REPLACE FUNCTION tenantbroker.make_room(tenant text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  ended name;
  failed integer := 0;
BEGIN
  IF tenantbroker.leftovers_of(tenant) < tenantbroker.max_leftovers() THEN
    RETURN true;
  END IF;
  IF (SELECT r.last_value FROM tenantbroker.made_room r) > extract(epoch FROM clock_timestamp()) - 10 THEN
    RETURN false;
  END IF;
  PERFORM setval('tenantbroker.made_room', extract(epoch FROM clock_timestamp())::bigint);
  FOR ended IN SELECT o FROM tenantbroker.own_leftovers(make_room.tenant) o ORDER BY random() LOOP
    IF NOT tenantbroker.remove_user(ended) THEN
      failed := failed + 1;
    END IF;
    EXIT WHEN failed = 2 OR tenantbroker.leftovers_of(tenant) < tenantbroker.max_leftovers();
  END LOOP;
  RETURN tenantbroker.leftovers_of(tenant) < tenantbroker.max_leftovers();
END
$$;

-- create_user makes a login that is one tenant's until valid_until, with what
-- base may do and so many connections. Vault calls it, see the broker's lease
-- targets. It refuses a tenant whose users have left too much behind.
DROP FUNCTION IF EXISTS tenantbroker.create_user(text, text, timestamptz, text, text);
CREATE OR REPLACE FUNCTION tenantbroker.create_user(username text, password text, valid_until timestamptz, tenant text, base text, connections integer DEFAULT 20) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '3s'
AS $$
BEGIN
  IF username IS NULL OR username = '' OR octet_length(username) > 63 THEN
    RAISE EXCEPTION 'a user name is 1 to 63 bytes';
  END IF;
  IF password IS NULL OR length(password) < 16 THEN
    RAISE EXCEPTION 'a password is at least 16 characters';
  END IF;
  IF valid_until IS NULL OR valid_until <= clock_timestamp() OR valid_until > clock_timestamp() + interval '32 days' THEN
    RAISE EXCEPTION 'a user ends, within 32 days';
  END IF;
  IF NOT EXISTS (SELECT FROM tenantbroker.bases b WHERE b.role = base) THEN
    RAISE EXCEPTION 'no such base role; tenantbroker.allow_base makes one';
  END IF;
  IF connections IS NULL OR connections < 1 OR connections > 1000 THEN
    RAISE EXCEPTION 'a user has 1 to 1000 connections';
  END IF;
  IF NOT tenantbroker.make_room(tenant) THEN
    RAISE EXCEPTION 'tenantbroker: too many leftovers: % users of this tenant have ended and can''t be dropped, since they own something', tenantbroker.leftovers_of(tenant)
      USING HINT = 'tenantbroker.check() names them: take away what they own, roll back what they left prepared, then SELECT tenantbroker.reap()';
  END IF;
  PERFORM tenantbroker.reap(2);
  EXECUTE format('CREATE ROLE %I LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS CONNECTION LIMIT %s PASSWORD %L VALID UNTIL %L IN ROLE %I, %I',
    username, connections, password, valid_until, tenantbroker.tenant_role(tenant), base);
END
$$;

-- renew_user moves the end of one of our users.
CREATE OR REPLACE FUNCTION tenantbroker.renew_user(username text, valid_until timestamptz) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '3s'
AS $$
BEGIN
  IF NOT tenantbroker.is_user(username) THEN
    RAISE EXCEPTION 'not a user of the broker';
  END IF;
  IF valid_until IS NULL OR valid_until > clock_timestamp() + interval '32 days' THEN
    RAISE EXCEPTION 'a user ends, within 32 days';
  END IF;
  EXECUTE format('ALTER ROLE %I VALID UNTIL %L', username, valid_until);
END
$$;

-- remove_user drops an ended user with all that it owns in this database, and
-- reports whether it could: somebody may have given it a privilege, or hold a
-- lock, and what it owns may be in another database.
CREATE OR REPLACE FUNCTION tenantbroker.remove_user(username text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '200ms'
SET client_min_messages = error
AS $$
BEGIN
  EXECUTE format('GRANT %I TO tenantbroker_owner', username); -- to drop what it owns
  EXECUTE format('DROP OWNED BY %I', username);
  EXECUTE format('DROP ROLE %I', username);
  DELETE FROM tenantbroker.leftovers l WHERE NOT EXISTS (SELECT FROM pg_roles u WHERE u.oid = l.id);
  RETURN true;
EXCEPTION WHEN OTHERS THEN
  RETURN false;
END
$$;

-- close_user takes the login from an ended user. One who left its own row
-- locked, in a prepared transaction, can log in and see nothing.
CREATE OR REPLACE FUNCTION tenantbroker.close_user(username text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '200ms'
AS $$
BEGIN
  EXECUTE format('ALTER ROLE %I NOLOGIN PASSWORD NULL', username);
EXCEPTION WHEN lock_not_available THEN
  NULL;
END
$$;

-- end_sessions ends the sessions of a user, in whatever database.
CREATE OR REPLACE FUNCTION tenantbroker.end_sessions(id oid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET client_min_messages = error
AS $$
BEGIN
  PERFORM pg_stat_clear_snapshot();
  PERFORM pg_terminate_backend(a.pid) FROM pg_stat_activity a WHERE a.usesysid = id; -- all at once
  PERFORM pg_stat_clear_snapshot();
  PERFORM pg_terminate_backend(a.pid, 1000) FROM pg_stat_activity a WHERE a.usesysid = id;
END
$$;

-- drop_user ends one of our users and its sessions, and removes it. First of
-- all it takes what gives the user rows, which nobody can stand in the way of:
-- one that can't be dropped yet is a leftover without rights, for reap. One
-- that is not there is gone already.
CREATE OR REPLACE FUNCTION tenantbroker.drop_user(username text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
DECLARE
  user_id oid;
  user_tenant text;
  granted name;
BEGIN
  SELECT u.oid INTO user_id FROM pg_roles u WHERE u.rolname = username;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  IF NOT EXISTS (SELECT FROM tenantbroker.leftovers l WHERE l.id = user_id) THEN
    IF NOT tenantbroker.is_user(username) THEN
      RAISE EXCEPTION 'not a user of the broker';
    END IF;
    SELECT min(t.tenant) INTO user_tenant FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid
      JOIN tenantbroker.tenants t ON t.role = r.rolname WHERE m.member = user_id;
    FOR granted IN
      SELECT r.rolname FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid WHERE m.member = user_id
        AND (r.rolname IN (SELECT t.role FROM tenantbroker.tenants t) OR r.rolname IN (SELECT b.role FROM tenantbroker.bases b))
    LOOP
      EXECUTE format('REVOKE %I FROM %I', granted, username);
    END LOOP;
    INSERT INTO tenantbroker.leftovers (id, tenant) VALUES (user_id, user_tenant);
  END IF;
  PERFORM tenantbroker.end_sessions(user_id); -- with the locks that they hold
  PERFORM tenantbroker.close_user(username);
  PERFORM tenantbroker.end_sessions(user_id); -- those that slipped in
  IF NOT tenantbroker.remove_user(username) THEN
    UPDATE tenantbroker.leftovers l SET tried = clock_timestamp() WHERE l.id = user_id;
    RAISE WARNING 'tenantbroker: % has ended, and can''t be dropped yet', username;
  END IF;
END
$$;

-- reap removes up to most users whose end is over a minute ago: those that
-- Vault forgot, since it lost its storage; and tries as many leftovers.
-- create_user has it remove two. A leftover that a session holds on to takes
-- the time of its locks, in which Vault makes nobody's users: then leftovers
-- are left alone for ten seconds.
CREATE OR REPLACE FUNCTION tenantbroker.reap(most integer DEFAULT 1000) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  late text;
  n integer := 0;
BEGIN
  FOR late IN
    (SELECT DISTINCT u.rolname FROM pg_roles u
    JOIN pg_auth_members m ON m.member = u.oid
    JOIN pg_roles r ON r.oid = m.roleid
    JOIN tenantbroker.tenants t ON t.role = r.rolname
    WHERE u.rolvaliduntil < clock_timestamp() - interval '1 minute' AND u.rolvaliduntil <> '-infinity'
    LIMIT most)
    UNION ALL
    (SELECT u.rolname FROM pg_roles u JOIN tenantbroker.leftovers l ON l.id = u.oid
    WHERE most > 2 OR NOT EXISTS (SELECT FROM tenantbroker.leftovers t WHERE t.tried > clock_timestamp() - interval '10 seconds')
    ORDER BY random() LIMIT most)
  LOOP
    BEGIN
      PERFORM tenantbroker.drop_user(late);
      n := n + 1;
    EXCEPTION WHEN OTHERS THEN
      RAISE WARNING 'tenantbroker: a user that is over could not be removed: %', SQLERRM;
    END;
  END LOOP;
  RETURN n;
END
$$;

-- allow_base lets tenants' users be given a role. For a superuser.
CREATE OR REPLACE FUNCTION tenantbroker.allow_base(base name) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = base) THEN
    RAISE EXCEPTION 'no such role: %', base;
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = base AND
      (rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls OR rolreplication OR rolname LIKE 'pg\_%')) THEN
    RAISE EXCEPTION '% is more than a role for an application', base;
  END IF;
  IF EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member WHERE r.rolname = base) THEN
    RAISE EXCEPTION '% is a member of other roles: give it privileges of its own', base;
  END IF;
  -- From PostgreSQL 16 on, who gives a role to others must be allowed to.
  EXECUTE format('GRANT %I TO tenantbroker_owner WITH ADMIN OPTION', base);
  INSERT INTO tenantbroker.bases (role) VALUES (base) ON CONFLICT DO NOTHING;
END
$$;

-- protect puts the one policy on a table, and on its partitions and children,
-- which can be named in a query by themselves. For the table's owner.
CREATE OR REPLACE FUNCTION tenantbroker.protect(target regclass, tenant_column name DEFAULT 'tenant') RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  part regclass;
BEGIN
  FOR part IN
    WITH RECURSIVE tree(oid) AS (
      SELECT target::oid
      UNION
      SELECT i.inhrelid FROM pg_inherits i JOIN tree ON i.inhparent = tree.oid)
    SELECT tree.oid::regclass FROM tree
  LOOP
    -- Tenants are compared byte for byte: not a type, nor a collation, that
    -- takes two of them for equal.
    IF NOT EXISTS (
      SELECT FROM pg_attribute a LEFT JOIN pg_collation c ON c.oid = a.attcollation
      WHERE a.attrelid = part AND a.attname = tenant_column AND NOT a.attisdropped AND a.attnum > 0
        AND a.atttypid IN ('text'::regtype, 'varchar'::regtype) AND coalesce(c.collisdeterministic, true)) THEN
      RAISE EXCEPTION '%: % is no column of type text with a deterministic collation', part, tenant_column;
    END IF;
    IF EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = part AND p.polpermissive AND p.polname <> 'tenantbroker') THEN
      RAISE EXCEPTION '%: another permissive policy would open what this one closes', part;
    END IF;
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', part);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', part);
    IF EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = part AND p.polname = 'tenantbroker') THEN
      EXECUTE format('DROP POLICY tenantbroker ON %s', part); -- in this transaction: nobody sees it gone
    END IF;
    EXECUTE format('CREATE POLICY tenantbroker ON %s AS PERMISSIVE FOR ALL TO PUBLIC '
      'USING (%I = (SELECT tenantbroker.session_tenant())) WITH CHECK (%I = (SELECT tenantbroker.session_tenant()))',
      part, tenant_column, tenant_column);
  END LOOP;
END
$$;

-- policy_says is the expression of the one policy, as PostgreSQL shows it, for a
-- column of a type that protect takes; NULL for another.
CREATE OR REPLACE FUNCTION tenantbroker.policy_says(tenant_column name, type oid) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  SELECT CASE type WHEN 'text'::regtype THEN format('(%I = ( SELECT tenantbroker.session_tenant()))', tenant_column)
    WHEN 'varchar'::regtype THEN format('((%I)::text = ( SELECT tenantbroker.session_tenant()))', tenant_column) END;
END;

-- check lists what would let a tenant's user past row security. Nothing listed
-- is what you want.
CREATE OR REPLACE FUNCTION tenantbroker.check() RETURNS TABLE (object text, problem text)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
  WITH who(oid) AS (
    SELECT r.oid FROM pg_roles r JOIN tenantbroker.bases b ON b.role = r.rolname
    UNION SELECT r.oid FROM pg_roles r JOIN tenantbroker.tenants t ON t.role = r.rolname
  ), rel AS (
    SELECT c.oid, c.oid::regclass::text AS name, c.relkind, c.relrowsecurity, c.relforcerowsecurity, c.relowner, w.oid AS who
    FROM pg_class c CROSS JOIN who w JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'tenantbroker') AND n.nspname !~ '^pg_(toast|temp)'
      AND (has_table_privilege(w.oid, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
        OR has_any_column_privilege(w.oid, c.oid, 'SELECT, INSERT, UPDATE, REFERENCES'))
  ), policy AS ( -- what is called so, and whether it says what protect makes it say
    SELECT p.polrelid, p.polpermissive AND p.polcmd = '*' AND p.polroles = '{0}'::oid[] AND EXISTS (
      SELECT FROM pg_attribute a WHERE a.attrelid = p.polrelid AND a.attnum > 0 AND NOT a.attisdropped
        AND replace(pg_get_expr(p.polqual, p.polrelid), ' AS session_tenant', '') = tenantbroker.policy_says(a.attname, a.atttypid)
        AND replace(pg_get_expr(p.polwithcheck, p.polrelid), ' AS session_tenant', '') = tenantbroker.policy_says(a.attname, a.atttypid)) AS intact
    FROM pg_policy p WHERE p.polname = 'tenantbroker'
  ), protected(oid, attnum) AS ( -- which column the policy looks at
    SELECT p.polrelid, d.refobjsubid FROM pg_policy p JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid
      AND d.refclassid = 'pg_class'::regclass AND d.refobjid = p.polrelid AND d.refobjsubid > 0
    WHERE p.polname = 'tenantbroker'
  )
  SELECT DISTINCT name, 'row security is not enabled and forced: tenantbroker.protect' FROM rel
    WHERE relkind IN ('r', 'p') AND NOT (relrowsecurity AND relforcerowsecurity)
  UNION SELECT name, 'does not have the policy: tenantbroker.protect' FROM rel
    WHERE relkind IN ('r', 'p') AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = rel.oid AND p.polname = 'tenantbroker')
  UNION SELECT name, 'the policy is not the one that tenantbroker.protect makes: its command, its roles or its expressions were changed'
    FROM rel JOIN policy p ON p.polrelid = rel.oid WHERE NOT p.intact
  UNION SELECT name, 'has another permissive policy' FROM rel
    WHERE EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = rel.oid AND p.polpermissive AND p.polname <> 'tenantbroker')
  UNION SELECT name, 'TRUNCATE, REFERENCES or TRIGGER is granted: row security does not cover them' FROM rel
    WHERE relkind IN ('r', 'p', 'f') AND (has_table_privilege(who, oid, 'TRUNCATE, TRIGGER')
      OR has_table_privilege(who, oid, 'REFERENCES') OR has_any_column_privilege(who, oid, 'REFERENCES'))
  UNION SELECT name, 'a unique key without the tenant tells whether another tenant has a value: ' || i.indexrelid::regclass::text
    FROM rel JOIN protected t ON t.oid = rel.oid JOIN pg_index i ON i.indrelid = rel.oid
    WHERE i.indisunique AND NOT t.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
  UNION SELECT name, 'a foreign key without the tenant reaches another tenant''s rows: ' || f.conname
    FROM rel JOIN protected t ON t.oid = rel.oid JOIN pg_constraint f ON f.conrelid = rel.oid AND f.contype = 'f'
    WHERE NOT t.attnum = ANY (f.conkey) AND f.confrelid IN (SELECT oid FROM protected)
  UNION SELECT name, 'a materialized view or foreign table has no row security' FROM rel WHERE relkind IN ('m', 'f')
  UNION SELECT name, 'a view of an owner that row security does not bind' FROM rel JOIN pg_roles o ON o.oid = relowner
    WHERE relkind = 'v' AND (o.rolsuper OR o.rolbypassrls)
  UNION SELECT name, 'is owned by a role that tenants'' users are in' FROM rel WHERE pg_has_role(who, relowner, 'MEMBER')
  UNION SELECT p.oid::regprocedure::text, 'runs as an owner that row security does not bind'
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_roles o ON o.oid = p.proowner CROSS JOIN who w
    WHERE p.prosecdef AND (o.rolsuper OR o.rolbypassrls) AND has_function_privilege(w.oid, p.oid, 'EXECUTE')
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'tenantbroker')
  UNION SELECT n.nspname::text, 'tenants'' users may create objects in this schema'
    FROM pg_namespace n CROSS JOIN who w WHERE has_schema_privilege(w.oid, n.oid, 'CREATE')
  UNION SELECT current_database()::text, 'tenants'' users may create schemas'
    FROM who w WHERE has_database_privilege(w.oid, current_database(), 'CREATE')
  UNION SELECT r.rolname::text, 'a role of tenants'' users is in other roles, or has rights over all rows'
    FROM who w JOIN pg_roles r ON r.oid = w.oid
    WHERE r.rolsuper OR r.rolbypassrls OR r.rolcreaterole OR r.rolreplication
      OR EXISTS (SELECT FROM pg_auth_members m WHERE m.member = r.oid)
  UNION SELECT u.rolname::text, 'a user of more than one tenant: it sees nothing'
    FROM pg_roles u JOIN pg_auth_members m ON m.member = u.oid JOIN pg_roles r ON r.oid = m.roleid
    JOIN tenantbroker.tenants t ON t.role = r.rolname GROUP BY u.rolname HAVING count(DISTINCT t.tenant) > 1
  UNION SELECT u.rolname::text, 'a user that has ended and can''t be dropped: something in this or another database is its own, or was granted to it'
    FROM pg_roles u JOIN tenantbroker.leftovers l ON l.id = u.oid
  UNION SELECT t.tenant, 'gets no more users: as many of its ended ones as are allowed can''t be dropped'
    FROM (SELECT DISTINCT l.tenant FROM tenantbroker.leftovers l) t WHERE tenantbroker.leftovers_of(t.tenant) >= tenantbroker.max_leftovers()
  UNION SELECT current_database()::text, 'many ended users can''t be dropped: tenants'' users may have given each other privileges'
    FROM (SELECT count(*) AS n FROM tenantbroker.leftovers l JOIN pg_roles u ON u.oid = l.id) l WHERE l.n >= tenantbroker.many_leftovers()
  ORDER BY 1, 2;
END;

REVOKE ALL ON ALL TABLES IN SCHEMA tenantbroker FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tenantbroker FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tenantbroker.session_tenant() TO PUBLIC;
GRANT EXECUTE ON FUNCTION tenantbroker.protect(regclass, name) TO PUBLIC; -- as themselves, on tables of their own
GRANT EXECUTE ON FUNCTION
  tenantbroker.create_user(text, text, timestamptz, text, text, integer),
  tenantbroker.renew_user(text, timestamptz),
  tenantbroker.drop_user(text),
  tenantbroker.reap(integer)
TO tenantbroker_vault;

COMMIT;
