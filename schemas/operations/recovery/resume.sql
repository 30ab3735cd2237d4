-- A session goes on: active, as far as its artifacts say (null: as far as it was).
update coordination_sessions set
  status = 'active', completed_at = null, last_activity = :now, progress = coalesce(:progress, progress)
where session_id = :session;
