-- An agent ends. What it still had leased is given back by messages/give_back.sql in the same transaction. What others
-- noted when they took it for dead goes: its own word counts (see the trigger agent_registry_revives).
insert into refusals
select 'unknown_agent' where not exists (select 1 from agent_registry where agent_id = :agent);

insert into refusals
select 'invalid_status' where :status not in ('completed', 'failed', 'terminated');

update agent_registry set
  status = :status, completion_time = case
    when error_info ->> 'by' is not null and coalesce(error_info ->> 'silent_since', error_info ->> 'recovery') is not null
      then :now
    else coalesce(completion_time, :now) end,
  last_heartbeat = :now, current_task = null,
  error_info = case
    when error_info ->> 'by' is not null and coalesce(error_info ->> 'silent_since', error_info ->> 'recovery') is not null
      then /*sqlite*/ nullif(json_remove(error_info, '$.silent_since', '$.recovery', '$.by', '$.at'), '{}') /*end*/
        /*postgres nullif((error_info::jsonb - array['silent_since', 'recovery', 'by', 'at'])::text, '{}')::json */
    else error_info end
where agent_id = :agent;

select record from agent_records where agent_id = :agent;
