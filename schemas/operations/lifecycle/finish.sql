-- An agent ends, at :at (null: now): completed, failed or killed. One that was only found gone may be ended too, by
-- whoever knows how.
insert into refusals
select 'unknown_trace' where not exists (select 1 from agent_lifecycle where agent_id = :id);

insert into refusals
select 'already_ended' where exists (
  select 1 from agent_lifecycle where agent_id = :id and status in ('completed', 'failed', 'killed') and unseen = 0);

insert into refusals
select 'not_started' where exists (select 1 from agent_lifecycle where agent_id = :id and started_at is null);

insert into refusals
select 'invalid_status' where :status not in ('completed', 'failed', 'killed');

insert into refusals select 'future_time' where :at > :now;

update agent_lifecycle set
  status = :status, unseen = 0, completed_at = coalesce(:at, max(:now, started_at)), exit_code = :exit_code,
  error_message = :error, output_tail = :output, last_seen_at = coalesce(:at, :now)
where agent_id = :id;

select record from lifecycle_records where agent_id = :id;
