package pgguard

// A partition is a table that can be named by itself, and so is a child by
// INHERITS: the policies of the parent hold for what is asked of the parent only,
// and those of a child for what is asked of the child.

const childrenSQL = `DO $children$
DECLARE
  child record;
BEGIN -- partitions and other children can be named by themselves
  FOR child IN
    WITH RECURSIVE below AS (
      SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE i.inhparent = %[3]s::pg_catalog.regclass
      UNION SELECT i.inhrelid FROM below b JOIN pg_catalog.pg_inherits i ON i.inhparent = b.inhrelid)
    SELECT pg_catalog.format('%%I.%%I', n.nspname, c.relname) AS name, c.relkind
    FROM below b JOIN pg_catalog.pg_class c ON c.oid = b.inhrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace ORDER BY 1
  LOOP
    IF child.relkind = 'f' THEN
      RAISE EXCEPTION '%%, a child of %%: a foreign table has no row security', child.name, %[3]s;
    END IF;
    EXECUTE pg_catalog.format('ALTER TABLE %%1$s ENABLE ROW LEVEL SECURITY;
      ALTER TABLE %%1$s FORCE ROW LEVEL SECURITY;
      DROP POLICY IF EXISTS tenantguard ON %%1$s;
      DROP POLICY IF EXISTS tenantguard_only ON %%1$s;
      CREATE POLICY tenantguard ON %%1$s AS PERMISSIVE FOR ALL TO PUBLIC
        USING (%%2$I = (SELECT tenantguard.tenant())) WITH CHECK (%%2$I = (SELECT tenantguard.tenant()));
      CREATE POLICY tenantguard_only ON %%1$s AS RESTRICTIVE FOR ALL TO PUBLIC
        USING (%%2$I = (SELECT tenantguard.tenant())) WITH CHECK (%%2$I = (SELECT tenantguard.tenant()))',
      child.name, %[4]s);
  END LOOP;
END
$children$;
`

// childrenGrantSQL leaves a child what row security covers: the role uses it
// through its parent.
const childrenGrantSQL = `DO $children$
DECLARE
  child text;
BEGIN
  FOR child IN
    WITH RECURSIVE below AS (
      SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE i.inhparent = %[1]s::pg_catalog.regclass
      UNION SELECT i.inhrelid FROM below b JOIN pg_catalog.pg_inherits i ON i.inhparent = b.inhrelid)
    SELECT pg_catalog.format('%%I.%%I', n.nspname, c.relname)
    FROM below b JOIN pg_catalog.pg_class c ON c.oid = b.inhrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace ORDER BY 1
  LOOP
    EXECUTE pg_catalog.format('REVOKE TRUNCATE, REFERENCES, TRIGGER ON %%s FROM PUBLIC, %%I', child, %[2]s);
  END LOOP;
END
$children$;
`

// foreignKeysSQL looks at all guarded tables of the database: a policy depends on
// the column that it compares.
const foreignKeysSQL = `
DO $keys$
DECLARE
  k record;
BEGIN -- a foreign key is checked, and acts, without asking any policy
  FOR k IN
    WITH guarded AS (
      SELECT DISTINCT p.polrelid AS relid, d.refobjsubid AS tenant FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_depend d
        ON d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND d.objid = p.oid
        AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = p.polrelid AND d.refobjsubid > 0
      WHERE p.polname = 'tenantguard')
    SELECT c.conname, c.conrelid::pg_catalog.regclass AS child, c.confrelid::pg_catalog.regclass AS parent,
      c.confdeltype IN ('c', 'n', 'd') OR c.confupdtype IN ('c', 'n', 'd') AS acts
    FROM pg_catalog.pg_constraint c JOIN guarded child ON child.relid = c.conrelid JOIN guarded parent ON parent.relid = c.confrelid
    WHERE c.contype = 'f' AND c.conparentid = 0 AND NOT EXISTS (
      SELECT FROM pg_catalog.generate_subscripts(c.conkey, 1) i WHERE c.conkey[i] = child.tenant AND c.confkey[i] = parent.tenant)
    ORDER BY 2, 1
  LOOP
    RAISE WARNING '%: the foreign key % to % leaves the tenant out, and %', k.child, k.conname, k.parent,
      CASE WHEN k.acts THEN 'deletes or changes rows of other tenants' ELSE 'tells of rows of other tenants' END;
  END LOOP;
END
$keys$;
`
