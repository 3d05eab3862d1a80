-- name: parts
-- The bounds of the table partitions of payments, none if they are in one table. One that is being detached is none any more.
SELECT pg_get_expr(c.relpartbound, c.oid)
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = to_regclass('payments') AND NOT i.inhdetachpending AND c.relispartition

-- name: sizes
-- The table partitions of one table, with their estimated rows and their bytes, indexes included.
SELECT c.relname, pg_get_expr(c.relpartbound, c.oid), greatest(c.reltuples, 0)::bigint, pg_total_relation_size(c.oid)
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = to_regclass(%(table)s::text) AND NOT i.inhdetachpending AND c.relispartition

-- name: kind
-- 'r' for one table, 'p' for one with table partitions, NULL for none.
SELECT c.relkind::text FROM pg_class c WHERE c.oid = to_regclass(%(table)s::text)

-- name: left_checks
-- The CHECKs that a conversion has added and not used yet, with their bounds.
SELECT c.conrelid::regclass::text, pg_get_constraintdef(c.oid), c.convalidated
FROM pg_constraint c
WHERE c.conname = 'okane_first_part'
  AND c.conrelid IN (SELECT to_regclass(t) FROM unnest(%(tables)s::text[]) t)
  AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.conrelid)

-- name: obstacles
-- Things on a table that would stay at its old part, or break: okane makes none of them.
SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgrelid = %(table)s::regclass AND NOT tgisinternal
UNION ALL
SELECT 'foreign key ' || conname FROM pg_constraint
WHERE contype = 'f' AND (conrelid = %(table)s::regclass OR confrelid = %(table)s::regclass)
UNION ALL
SELECT DISTINCT 'view or rule on it: ' || r.ev_class::regclass::text
FROM pg_depend d JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
WHERE d.refobjid = %(table)s::regclass
UNION ALL
SELECT 'row security policy ' || polname FROM pg_policy WHERE polrelid = %(table)s::regclass
UNION ALL
SELECT 'publication ' || p.pubname FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
WHERE r.prrelid = %(table)s::regclass
UNION ALL
SELECT 'rights to the column ' || attname FROM pg_attribute WHERE attrelid = %(table)s::regclass AND attacl IS NOT NULL
UNION ALL
SELECT 'inheritance' FROM pg_inherits WHERE inhrelid = %(table)s::regclass OR inhparent = %(table)s::regclass

-- name: indexes
-- The indexes of a table: name, definition, whether it is the primary key, whether it is unique, whether it can be used.
SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid), i.indisprimary, i.indisunique, i.indisvalid
FROM pg_index i WHERE i.indrelid = %(table)s::regclass ORDER BY i.indexrelid

-- name: rights
-- The rights to a table that other roles have, its owner, and its storage parameters.
SELECT pg_get_userbyid(c.relowner), c.reloptions,
       (SELECT array_agg(ARRAY[CASE WHEN a.grantee = 0 THEN '' ELSE pg_get_userbyid(a.grantee) END, a.privilege_type,
                               a.is_grantable::text])
        FROM aclexplode(c.relacl) a WHERE a.grantee <> c.relowner)
FROM pg_class c WHERE c.oid = %(table)s::regclass
