-- One session, or no row.
select record from session_records where session_id = :session;
