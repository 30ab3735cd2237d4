-- A session has failed: it was given up without anybody saying so. Returns its id, unless something happened meanwhile.
update coordination_sessions set status = 'failed', completed_at = :now
where session_id = :session and status = 'active'
  and last_activity < strftime('%Y-%m-%d %H:%M:%f', :now, '-' || :silence || ' seconds')
returning session_id;
