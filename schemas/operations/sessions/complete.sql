-- A session is done: progress 100. Idempotent; one that was abandoned stays so.
/*postgres select session_id from coordination_sessions where session_id = :session for update; */
insert into refusals
select iif(count(*) = 0, 'unknown_session', 'already_ended') from coordination_sessions where session_id = :session
having count(*) = 0 or count(case when status = 'abandoned' then 1 end) > 0;

update coordination_sessions set progress = 100, last_activity = :now, status = 'completed',
  completed_at = iif(status = 'completed', completed_at, :now)
where session_id = :session and (status <> 'completed' or progress <> 100);

select record from session_records where session_id = :session;
