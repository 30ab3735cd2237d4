-- A session begins again: from now on its agents go on from no checkpoint that was made before (see
-- checkpoints/restore.sql). Artifacts stay; nothing is deleted.
update coordination_sessions set
  status = 'active', completed_at = null, last_activity = :now, progress = 0, phase = null,
  configuration =
    /*sqlite*/ json_set(iif(json_type(configuration) = 'object', configuration, '{}'), '$.restarted_at', :now) /*end*/
    /*postgres (case when json_typeof(configuration) = 'object' then configuration::jsonb else '{}' end
      || jsonb_build_object('restarted_at', replace(:now, ' ', ' ')))::json */
where session_id = :session;
