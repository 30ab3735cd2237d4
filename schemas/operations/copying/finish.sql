-- The numbers that the database gives go on after the copied ones. SQLite sees to that by itself.
/*postgres
select setval(pg_get_serial_sequence('agent_messages', 'id'), coalesce(max(id), 1), max(id) is not null) from agent_messages;
select setval(pg_get_serial_sequence('agent_checkpoints', 'rowid'), coalesce(max(rowid), 1), max(rowid) is not null)
from agent_checkpoints;
select setval(pg_get_serial_sequence('agent_health_log', 'id'), coalesce(max(id), 1), max(id) is not null) from agent_health_log;
select setval(pg_get_serial_sequence('agent_lifecycle', 'agent_id'), coalesce(max(agent_id), 1), max(agent_id) is not null)
from agent_lifecycle;
*/
select count(*) from agent_messages;
