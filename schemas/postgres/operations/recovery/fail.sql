-- Differs: PostgreSQL merges JSON with ||, and has no json_patch; else as in schemas/operations.
update agent_registry set
  status = 'failed', completion_time = coalesce(completion_time, :now), current_task = null,
  error_info = (case
    when error_info is null then '{}'::jsonb
    when json_typeof(error_info) = 'object' then error_info::jsonb
    else jsonb_build_object('error', error_info) end || :mark::jsonb)::json
where agent_id = :agent;
