-- An agent is marked failed; why is added to what is known of its error.
update agent_registry set
  status = 'failed', completion_time = coalesce(completion_time, :now), current_task = null,
  error_info =
    /*sqlite*/ json_patch(case
      when error_info is null then '{}'
      when json_type(error_info) = 'object' then error_info
      else json_object('error', json(error_info)) end, :mark) /*end*/
    /*postgres (case
      when error_info is null then '{}'::jsonb
      when json_typeof(error_info) = 'object' then error_info::jsonb
      else jsonb_build_object('error', error_info) end || :mark::jsonb)::json */
where agent_id = :agent;
