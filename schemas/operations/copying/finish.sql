-- The ids that the database gives go on after the last ones that it gave in the copied bus. (SQLite looks itself at the
-- newest message, which is never deleted, and at the newest checkpoint.)
/*sqlite*/
delete from sqlite_sequence where name in ('agent_health_log', 'agent_lifecycle');

insert into sqlite_sequence (name, seq) values ('agent_health_log', :last_health), ('agent_lifecycle', :last_life);
/*end*/

/*postgres
select setval(pg_get_serial_sequence(owner, key), greatest(last, 1), last > 0)
from (values
  ('agent_messages', 'id', cast(:last_message as bigint)),
  ('agent_checkpoints', 'rowid', cast(:last_checkpoint as bigint)),
  ('agent_health_log', 'id', cast(:last_health as bigint)),
  ('agent_lifecycle', 'agent_id', cast(:last_life as bigint))) given (owner, key, last); */
