-- A session has failed: it was given up without anybody saying so.
update coordination_sessions set status = 'failed', completed_at = :now where session_id = :session and status = 'active';
