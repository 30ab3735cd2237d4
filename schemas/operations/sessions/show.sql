-- One session.
insert into refusals
select 'unknown_session' where not exists (select 1 from coordination_sessions where session_id = :session);

select record from session_records where session_id = :session;
