-- A spawned agent could not be started: failed, now.
insert into refusals
select 'unknown_trace' where not exists (select 1 from agent_lifecycle where agent_id = :id);

insert into refusals
select 'already_started' where exists (select 1 from agent_lifecycle where agent_id = :id and started_at is not null);

update agent_lifecycle set
  status = 'failed', unseen = 0, completed_at = max(:now, spawned_at), exit_code = :exit_code, error_message = :error
where agent_id = :id;

select record from lifecycle_records where agent_id = :id;
