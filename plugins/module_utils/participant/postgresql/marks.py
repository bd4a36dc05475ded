# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a planned table and the migration's triggers on it look like, as two digests: what a stage has left, and what a
window compares with it under its lock.

``pg_trigger.xmin`` changes with every DISABLE, ENABLE, replacement and restore, also where the switches are put back
exactly, and with nothing else: neither VACUUM, CLUSTER and rewrites of the table nor its rename (measured). It says
nothing of the function's body, which is digested too.
"""

from __future__ import annotations

from ansible_collections.zdm.landscape.plugins.module_utils.participant.database import literal
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.partitions import tree
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.sql import (
    TRIGGER_PREFIX,
    Scheme,
    Work,
)

_MEMBERS = tree("SELECT w.oid")

# columns, constraints (also those that refer to its tenant columns), unique indexes, the application's triggers and
# rules, heirs, bounds of a partition and row security; names are written as our search path has it. A column's xmin
# tells that its values were rewritten (ALTER TYPE … USING), which nothing else shows
_STRUCTURE = f"""concat_ws('/',
 (SELECT string_agg(concat_ws(' ', attnum, attname, format_type(atttypid, atttypmod), attnotnull, attgenerated,
  attidentity, attcollation, xmin), ',' ORDER BY attnum)
  FROM pg_attribute WHERE attrelid = m.oid AND attnum > 0 AND NOT attisdropped),
 (SELECT string_agg(concat_ws(' ', conname, conrelid::regclass, pg_get_constraintdef(oid)), ',' ORDER BY conname,
  conrelid) FROM (SELECT oid, conname, conrelid FROM pg_constraint WHERE conrelid = m.oid UNION
   SELECT oid, conname, conrelid FROM pg_constraint WHERE m.oid = w.oid AND confrelid IN ({_MEMBERS})
   AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = confrelid AND a.attnum = ANY (confkey)
    AND a.attname = ANY (w.tenant))) k),
 (SELECT string_agg(pg_get_ruledef(oid), ',' ORDER BY oid) FROM pg_rewrite WHERE ev_class = m.oid),
 (SELECT string_agg(concat_ws(' ', inhrelid::regclass, inhparent::regclass), ',' ORDER BY inhrelid, inhparent)
  FROM pg_inherits WHERE inhrelid = m.oid OR inhparent = m.oid),
 (SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE oid = m.oid),
 (SELECT 'detaching' FROM pg_inherits i WHERE inhrelid = m.oid AND to_jsonb(i)->>'inhdetachpending' = 'true'),
 (SELECT concat_ws(' ', relrowsecurity, relforcerowsecurity) FROM pg_class WHERE oid = m.oid),
 (SELECT string_agg(pg_get_indexdef(indexrelid), ',' ORDER BY indexrelid) FROM pg_index
  WHERE indrelid = m.oid AND indisunique AND indisvalid),
 (SELECT string_agg(concat_ws(' ', tgname, tgenabled, tgtype, tgfoid::regprocedure), ',' ORDER BY tgname)
  FROM pg_trigger WHERE tgrelid = m.oid AND (NOT tgisinternal OR tgparentid <> 0 AND tgconstraint = 0)
  AND NOT starts_with(tgname::text, '{TRIGGER_PREFIX}')))"""


def marks_query(scheme: Scheme, tables: tuple[Work, ...]) -> str:
    """Name, digest of the structure, and what our triggers are, of each table that is there, its partitions included:
    a partition that is attached gets triggers of its own, and one that is detached loses them.
    """
    names = ", ".join(
        f"({literal(work.name)}, to_regclass({literal(work.sql)})::oid,"
        f" ARRAY[{', '.join(map(literal, work.columns))}]::name[])"
        for work in tables
    )
    structure = f"SELECT string_agg({_STRUCTURE}, '//' ORDER BY m.oid::regclass::text) FROM ({_MEMBERS}) m"
    ours = (
        "SELECT string_agg(concat_ws(' ', t.tgname, t.oid, t.xmin, t.tgenabled, CASE WHEN"
        f" p.oid NOT IN (coalesce(to_regproc({literal(scheme.fence('s'))})::oid, 0),"
        f" coalesce(to_regproc({literal(scheme.fence('t'))})::oid, 0)) THEN md5(p.prosrc) END), ',' ORDER BY t.tgname,"
        f" t.oid) FROM ({_MEMBERS}) m JOIN pg_trigger t ON t.tgrelid = m.oid JOIN pg_proc p ON p.oid = t.tgfoid WHERE"
        f" starts_with(t.tgname::text, {literal(scheme.trigger_prefix)})"
    )
    return (
        f"SELECT w.name, md5(({structure})), md5(coalesce(({ours}), '')) FROM (VALUES {names}) AS w(name, oid, tenant)"
        " WHERE w.oid IS NOT NULL"
    )


def triggers_query(scheme: Scheme) -> str:
    """Every trigger of the migration: schema, table, name, whether it fires in every session; a clone of a partition
    counts as its parent's.
    """
    return (
        "SELECT nspname, relname, tgname, always FROM (SELECT n.nspname, c.relname, t.tgname, t.tgparentid,"
        " bool_and(t.tgenabled = 'A') OVER (PARTITION BY coalesce(pg_partition_root(t.tgrelid), t.tgrelid), t.tgname)"
        " AS always FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid ="
        f" c.relnamespace WHERE starts_with(t.tgname::text, {literal(scheme.trigger_prefix)})) q WHERE tgparentid = 0"
        " ORDER BY 1, 2, 3"
    )
