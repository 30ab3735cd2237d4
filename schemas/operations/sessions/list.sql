-- The sessions, the last active first; of one status, when given.
select record from session_records where :status is null or status = :status
order by last_activity desc, session_id;
