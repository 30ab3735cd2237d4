-- Differs: PostgreSQL merges JSON with ||, and has no json_set; else as in schemas/operations.
update coordination_sessions set
  status = 'active', completed_at = null, last_activity = :now, progress = 0, phase = null,
  configuration = (case when json_typeof(configuration) = 'object' then configuration::jsonb else '{}' end
    || jsonb_build_object('restarted_at', replace(:now, ' ', ' ')))::json
where session_id = :session;
