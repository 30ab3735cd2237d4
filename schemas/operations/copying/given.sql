-- The last ids that were given to messages, checkpoints, the health log and lives, since those may be gone that had them:
-- what the database remembers, to whoever may know it, and what a cursor names.
select 'last_message', coalesce(max(id), 0) from (
  select max(id) as id from agent_messages
  /*postgres union all select last_value from pg_sequences
  where schemaname = current_schema() and sequencename = 'agent_messages_id_seq' */) messages
union all
select 'last_checkpoint', coalesce(max(id), 0) from (
  select max(rowid) as id from agent_checkpoints
  /*postgres union all select last_value from pg_sequences
  where schemaname = current_schema() and sequencename = 'agent_checkpoints_rowid_seq' */) checkpoints
union all
select 'last_health', coalesce(max(id), 0) from (
  select max(id) as id from agent_health_log
  /*sqlite*/ union all select seq from sqlite_sequence where name = 'agent_health_log' /*end*/
  /*postgres union all select last_value from pg_sequences
  where schemaname = current_schema() and sequencename = 'agent_health_log_id_seq' */) health
union all
select 'last_life', coalesce(max(id), 0) from (
  select max(agent_id) as id from agent_lifecycle
  union all select max(life_id) from trace_exports
  /*sqlite*/ union all select seq from sqlite_sequence where name = 'agent_lifecycle' /*end*/
  /*postgres union all select last_value from pg_sequences
  where schemaname = current_schema() and sequencename = 'agent_lifecycle_agent_id_seq' */) lives;
