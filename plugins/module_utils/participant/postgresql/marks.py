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
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.sql import (
    TRIGGER_PREFIX,
    Scheme,
    Work,
)

# columns, constraints (also those that refer to its tenant columns), unique indexes, the application's triggers and
# rules, heirs and row security; names are written as our search path has it. A column's xmin tells that its values were
# rewritten (ALTER TYPE … USING), which nothing else shows
_STRUCTURE = f"""concat_ws('/',
 (SELECT string_agg(concat_ws(' ', attnum, attname, format_type(atttypid, atttypmod), attnotnull, attgenerated,
  attidentity, attcollation, xmin), ',' ORDER BY attnum)
  FROM pg_attribute WHERE attrelid = w.oid AND attnum > 0 AND NOT attisdropped),
 (SELECT string_agg(concat_ws(' ', conname, conrelid::regclass, pg_get_constraintdef(oid)), ',' ORDER BY conname,
  conrelid) FROM pg_constraint WHERE conrelid = w.oid OR confrelid = w.oid AND EXISTS (SELECT FROM pg_attribute a
  WHERE a.attrelid = w.oid AND a.attnum = ANY (confkey) AND a.attname = ANY (w.tenant))),
 (SELECT string_agg(pg_get_ruledef(oid), ',' ORDER BY oid) FROM pg_rewrite WHERE ev_class = w.oid),
 (SELECT string_agg(concat_ws(' ', inhrelid::regclass, inhparent::regclass), ',' ORDER BY inhrelid, inhparent)
  FROM pg_inherits WHERE inhrelid = w.oid OR inhparent = w.oid),
 (SELECT concat_ws(' ', relrowsecurity, relforcerowsecurity) FROM pg_class WHERE oid = w.oid),
 (SELECT string_agg(pg_get_indexdef(indexrelid), ',' ORDER BY indexrelid) FROM pg_index
  WHERE indrelid = w.oid AND indisunique AND indisvalid),
 (SELECT string_agg(concat_ws(' ', tgname, tgenabled, tgtype, tgfoid::regprocedure), ',' ORDER BY tgname)
  FROM pg_trigger WHERE tgrelid = w.oid AND NOT tgisinternal AND NOT starts_with(tgname::text, '{TRIGGER_PREFIX}')))"""


def marks_query(scheme: Scheme, tables: tuple[Work, ...]) -> str:
    """Name, digest of the structure, and what our triggers are, of each table that is there."""
    names = ", ".join(
        f"({literal(work.name)}, to_regclass({literal(work.sql)})::oid,"
        f" ARRAY[{', '.join(map(literal, work.columns))}]::name[])"
        for work in tables
    )
    ours = (
        "SELECT string_agg(concat_ws(' ', t.tgname, t.oid, t.xmin, t.tgenabled, CASE WHEN"
        f" p.oid NOT IN (coalesce(to_regproc({literal(scheme.fence('s'))})::oid, 0),"
        f" coalesce(to_regproc({literal(scheme.fence('t'))})::oid, 0)) THEN md5(p.prosrc) END), ',' ORDER BY t.tgname)"
        f" FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid WHERE t.tgrelid = w.oid AND"
        f" starts_with(t.tgname::text, {literal(scheme.trigger_prefix)})"
    )
    return (
        f"SELECT w.name, md5({_STRUCTURE}), md5(coalesce(({ours}), '')) FROM (VALUES {names}) AS w(name, oid, tenant)"
        " WHERE w.oid IS NOT NULL"
    )


def triggers_query(scheme: Scheme) -> str:
    """Every trigger of the migration: schema, table, name, whether it fires in every session."""
    return (
        "SELECT n.nspname, c.relname, t.tgname, t.tgenabled = 'A' AS always FROM pg_trigger t JOIN pg_class c ON c.oid"
        " = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE NOT t.tgisinternal AND"
        f" starts_with(t.tgname::text, {literal(scheme.trigger_prefix)}) ORDER BY 1, 2, 3"
    )
