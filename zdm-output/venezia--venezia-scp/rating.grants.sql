-- Migration venezia--venezia-scp
-- rating: mariadb 10.11.19-MariaDB-0+deb12u1
-- Rights that the migration's user needs. To be run by an administrator of the database, in it.

GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, TRIGGER, CREATE TEMPORARY TABLES, CREATE ROUTINE, ALTER ROUTINE, EXECUTE ON `rating`.* TO `zdm`@`127.0.0.1`;
GRANT PROCESS ON *.* TO `zdm`@`127.0.0.1`;
CREATE ROLE IF NOT EXISTS `zdm_definer`;
GRANT SELECT, INSERT, TRIGGER, EXECUTE ON `rating`.* TO `zdm_definer`;
GRANT `zdm_definer` TO `zdm`@`127.0.0.1`;
