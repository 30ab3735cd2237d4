-- An agent ends. What it still had leased is given back by messages/give_back.sql in the same transaction. What others
-- noted when they took it for dead goes: its own word counts (see the trigger agent_registry_revives).
insert into refusals
select 'unknown_agent' where not exists (select 1 from agent_registry where agent_id = :agent);

insert into refusals
select 'invalid_status' where :status not in ('completed', 'failed', 'terminated');

update agent_registry set
  status = :status, completion_time = coalesce(completion_time, :now), last_heartbeat = :now, current_task = null,
  error_info = case when coalesce(error_info ->> 'silent_since', error_info ->> 'recovery') is null then error_info end
where agent_id = :agent;

select record from agent_records where agent_id = :agent;
