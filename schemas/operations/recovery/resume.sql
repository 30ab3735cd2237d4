-- A session goes on: active, as far as its artifacts say (:progress, or null), and no less far than it was told to be.
update coordination_sessions set
  status = 'active', completed_at = null, last_activity = :now, progress = max(progress, coalesce(:progress, progress))
where session_id = :session;
