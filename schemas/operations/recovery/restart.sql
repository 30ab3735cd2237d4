-- A session begins again: from now on its agents go on from no checkpoint that was made before (see
-- checkpoints/restore.sql). Artifacts stay; nothing is deleted.
update coordination_sessions set
  status = 'active', completed_at = null, last_activity = :now, progress = 0, phase = null,
  configuration = json_set(iif(json_type(configuration) = 'object', configuration, '{}'), '$.restarted_at', :now)
where session_id = :session;
