-- A registered agent begins to work in this process; returns its record's id. The process may be on record already
-- (:traced, by `bus run`): then that is its record. What is still open of an earlier run under its id ends here.
update agent_lifecycle indexed by agent_lifecycle_open set
  status = 'killed', unseen = 1, error_message = 'it was started again',
  completed_at = max(spawned_at, max(coalesce(started_at, '0001-01-01'), coalesce(last_seen_at, '0001-01-01')))
where status in ('spawned', 'running') and registry_id = :agent
  and not (agent_id is :traced and pid = :pid and process_started_at is :process_started_at);

update agent_lifecycle set registry_id = :agent, session_id = :session
where agent_id = :traced and pid = :pid and process_started_at is :process_started_at and status in ('spawned', 'running');

insert into agent_lifecycle (pid, agent_type, task_id, priority_number, spawned_at, started_at, status, command,
  registry_id, session_id, host, pid_namespace, process_started_at, boot_id, last_seen_at, traceparent,
  idle_time_ms)
select :pid, :type, :task, :priority, :now, :now, 'running', :command,
  :agent, :session, :host, :pid_namespace, :process_started_at, :boot_id, :now, :traceparent, 0
where not exists (
  select 1 from agent_lifecycle
  where agent_id = :traced and pid = :pid and process_started_at is :process_started_at
    and status in ('spawned', 'running'));

select agent_id from agent_lifecycle indexed by agent_lifecycle_open
where status in ('spawned', 'running') and registry_id = :agent order by agent_id desc limit 1;
