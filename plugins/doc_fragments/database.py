# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the option group PARTICIPANTS."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  participants:
    description: Every database that holds rows of the tenant. The order is the order of messages, not of work.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The participant's name in plans, messages and results.
        type: str
        required: true
      kind:
        description: The kind of database.
        type: str
        required: true
        choices: [postgresql, mariadb, sqlite]
      host:
        description: Host of the database server. Excludes O(participants[].socket).
        type: str
      port:
        description: Port of the database server; the usual one of its kind by default.
        type: int
      socket:
        description: Unix socket of the server; for V(postgresql) the folder that holds it.
        type: path
      database:
        description: Name of the database; for V(sqlite) the path of its file.
        type: str
        required: true
      user:
        description: User of the database. Required for V(postgresql) and V(mariadb).
        type: str
      password:
        description: The user's password.
        type: str
      ssl:
        description: Whether to insist on TLS to the server.
        type: bool
        default: false
      ca_file:
        description: PEM file with the certificate authority of the server's certificate; the certificate is verified
          when it is given.
        type: path
      tenant_columns:
        description: Names, or regular expressions for names, of the columns that hold a tenant's id.
        type: list
        elements: str
        default: [tenant_id]
      tables:
        description:
          - What is said of single tables, by their name.
          - "Keys of each: C(strategy) (V(in_place), V(twin) or V(auto)), C(ignore) with the reason why the table holds
            no data of a tenant, C(tenant_columns) with its own tenant columns, C(follows) with the table that its rows
            belong to where no foreign key tells, C(own_ids) whether its tenant columns hold the participant's own ids,
            C(new_row) with values of the other tenant's row where it is made as a copy,
            C(no_cross_tenant_readers) when nothing reads rows of several tenants at once,
            C(key) with the columns of the unique key that identifies a row, when it is neither the primary key nor the
            first one of NOT NULL columns with the tenant column, and C(id_stays) with columns whose text may keep the
            tenant's id, each with the reason."
        type: dict
        default: {}
      ignore:
        description:
          - By regular expressions for whole names of tables, the reason why they hold no data of a tenant.
          - What O(participants[].tables) says of a table counts more.
        type: dict
        default: {}
      ids:
        description:
          - By subdomain the id by which this database calls a tenant, where it is not the tenant's id, for example an
            account number. Ids of binary columns are written C(0x…).
          - Excludes O(participants[].id_query).
        type: dict
      id_query:
        description:
          - A query that finds the id by which this database calls the tenant C(:tenant_id).
          - Where it has the form C(SELECT key FROM table WHERE column = :tenant_id) and finds nothing for the target,
            only that column of the source's row changes, and everything that refers to the row stays as it is.
        type: str
      no_cross_tenant_readers:
        description: Whether nothing reads rows of several tenants at once from any table of this database. Only then
          copies may stand beside the originals.
        type: bool
        default: false
      ddl_wait:
        description:
          - For V(mariadb), how long one attempt of the stage to make a trigger may wait for the transactions that use
            its table. V(50ms) is a good value.
          - Without it the stage never waits, so that no service ever queues behind it; a table that is in use at every
            moment then stays without triggers.
          - While an attempt waits, the services' new transactions on this table wait too, and one that reads the table
            and then writes to it
            can be ended with a deadlock error.
        type: str
      definer_role:
        description:
          - For V(mariadb), the role as which the migration's triggers run. A database administrator makes it and grants
            it to the user; the plan prints the statements.
          - By default C(zdm_definer) where that is granted to the user, else the user itself. Without the one as which
            they run, every tenant's writes to the planned tables fail.
        type: str
      user_rotates:
        description: Whether O(participants[].user) is dropped now and then, as a vault does that gives out users for a
          time. Then V(mariadb) insists on a role, see O(participants[].definer_role).
        type: bool
        default: false
"""
