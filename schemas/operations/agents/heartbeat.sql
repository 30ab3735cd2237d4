-- An agent is alive; optionally its status, task and phase are new (null leaves them). A status is its own
-- word, as in agents/retire.sql.
insert into refusals
select 'unknown_agent' where not exists (select 1 from agent_registry where agent_id = :agent);

update agent_registry set
  last_heartbeat = :now, current_task = coalesce(:task, current_task), current_phase = coalesce(:phase, current_phase),
  status = coalesce(:status, status),
  completion_time = case
    when coalesce(:status, status) not in ('completed', 'failed', 'terminated') then null
    else coalesce(completion_time, :now) end,
  error_info = case
    when :status is not null and error_info ->> 'by' is not null and coalesce(error_info ->> 'silent_since', error_info ->> 'recovery') is not null
      then /*sqlite*/ nullif(json_remove(error_info, '$.silent_since', '$.recovery', '$.by', '$.at'), '{}') /*end*/
        /*postgres nullif((error_info::jsonb - array['silent_since', 'recovery', 'by', 'at'])::text, '{}')::json */
    else error_info end
where agent_id = :agent;

select record from agent_records where agent_id = :agent;
