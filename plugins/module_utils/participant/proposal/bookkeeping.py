# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables in which well-known frameworks keep their own books: in every schema the same names, never a tenant's data."""

from __future__ import annotations

import re

BOOKKEEPING = {
    "which migrations of the schema have run": (
        r"flyway_schema_history|schema_version|databasechangelog|databasechangeloglock|alembic_version"
        r"|schema_migrations?|ar_internal_metadata|data_migrations|django_migrations|south_migrationhistory"
        r"|knex_migrations|knex_migrations_lock|_prisma_migrations|SequelizeMeta|SequelizeData|pgmigrations"
        r"|typeorm_metadata|mikro_orm_migrations|__drizzle_migrations|doctrine_migration_versions|migration_versions"
        r"|phinxlog|propel_migration|__EFMigrationsHistory|__MigrationHistory|VersionInfo|SchemaVersions"
        r"|goose_db_version|gorp_migrations|atlas_schema_revisions|db_migrations|migration_log|migration_model"
        r"|__diesel_schema_migrations|_sqlx_migrations|refinery_schema_history|seaql_migrations"
        r"|_yoyo_(migration|log|version)|yoyo_lock|aerich|river_migration|migrations"
    ),
    "the workflow engine's version, properties and migrations": (
        r"ACT_GE_(PROPERTY|SCHEMA_LOG)|ACT_ID_PROPERTY|(ACT|FLW)_\w+_DATABASECHANGELOG(LOCK)?"
    ),
    "the scheduler's locks and instances": (
        r"QRTZ_(LOCKS|SCHEDULER_STATE|PAUSED_TRIGGER_GRPS|CALENDARS)|shedlock|oban_peers|river_leader"
        r"|solid_queue_processes|hangfire\.(schema|lock|server)"
    ),
    "the framework's list of its own types and permissions": r"django_content_type|auth_permission",
    "the framework's counters of keys": r"hibernate_sequences?|openjpa_sequence_table",
    "code lists of @sap/cds/common": r"sap_common_(countries|currencies|languages|timezones)(_texts)?",
    "systems of coordinates of PostGIS": r"spatial_ref_sys",
}
"""By the reason why a table has no data of a tenant: whole names, in any letter case."""

_EXPRESSIONS = {reason: re.compile(names, re.IGNORECASE) for reason, names in BOOKKEEPING.items()}


def bookkeeping(table: str) -> str:
    """Why a table is a framework's own; empty when it is none that is known.

    :param table: with its schema, where that is not the default one.
    """
    for reason, names in _EXPRESSIONS.items():
        if names.fullmatch(table) or names.fullmatch(table.rpartition(".")[2]):
            return reason
    return ""
