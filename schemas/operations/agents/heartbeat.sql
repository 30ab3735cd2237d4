-- An agent is alive; optionally its status, task and phase are new (null leaves them). A status is its own
-- word, as in agents/retire.sql.
insert into refusals
select 'unknown_agent' where not exists (select 1 from agent_registry where agent_id = :agent);

update agent_registry set last_heartbeat = :now where agent_id = :agent;

update agent_registry set
  current_task = coalesce(:task, current_task), current_phase = coalesce(:phase, current_phase),
  status = coalesce(:status, status),
  completion_time = case
    when coalesce(:status, status) not in ('completed', 'failed', 'terminated') then null
    else coalesce(completion_time, :now) end
where agent_id = :agent;

select record from agent_records where agent_id = :agent;
