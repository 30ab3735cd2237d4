-- How far a session is, 0 to 100, and its phase, when given.
insert into refusals
select 'unknown_session' where not exists (select 1 from coordination_sessions where session_id = :session);

update coordination_sessions set progress = :progress, phase = coalesce(:phase, phase), last_activity = :now
where session_id = :session;

select record from session_records where session_id = :session;
