-- A spawned agent begins to work, at :at (null: now); under another process, when :pid is not null.
insert into refusals
select 'unknown_trace' where not exists (select 1 from agent_lifecycle where agent_id = :id);

insert into refusals
select 'already_ended' where exists (
  select 1 from agent_lifecycle where agent_id = :id and status in ('completed', 'failed', 'killed') and unseen = 0);

insert into refusals
select 'already_started' where exists (select 1 from agent_lifecycle where agent_id = :id and started_at is not null);

insert into refusals select 'future_time' where :at > :now;

update agent_lifecycle set
  status = 'running', unseen = 0, completed_at = null, error_message = null,
  started_at = coalesce(:at, max(:now, spawned_at)), last_seen_at = coalesce(:at, :now),
  registry_id = coalesce(:agent, registry_id), pid = coalesce(:pid, pid),
  host = iif(:pid is null, host, :host), pid_namespace = iif(:pid is null, pid_namespace, :pid_namespace),
  process_started_at = iif(:pid is null, process_started_at, :process_started_at),
  boot_id = iif(:pid is null, boot_id, :boot_id)
where agent_id = :id;

select record from lifecycle_records where agent_id = :id;
