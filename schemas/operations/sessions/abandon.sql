-- A session is given up; nothing is deleted. Idempotent; one that was completed stays so.
/*postgres select session_id from coordination_sessions where session_id = :session for update; */
insert into refusals
select iif(count(*) = 0, 'unknown_session', 'already_ended') from coordination_sessions where session_id = :session
having count(*) = 0 or count(case when status = 'completed' then 1 end) > 0;

update coordination_sessions set status = 'abandoned', completed_at = :now, last_activity = :now
where session_id = :session and status <> 'abandoned';

select record from session_records where session_id = :session;
