-- Migration venezia--venezia-scp
-- subscriptions: postgresql 15.18
-- Rights that the migration's user needs. To be run by an administrator of the database, in it.

GRANT CREATE ON DATABASE subscriptions TO zdm;
GRANT app TO zdm;
GRANT SET ON PARAMETER session_replication_role, deadlock_timeout TO zdm;
GRANT pg_read_all_stats TO zdm;
