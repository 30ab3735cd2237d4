-- An agent is marked failed; why is added to what is known of its error.
update agent_registry set
  status = 'failed', completion_time = coalesce(completion_time, :now), current_task = null,
  error_info = json_patch(case
    when error_info is null then '{}'
    when json_type(error_info) = 'object' then error_info
    else json_object('error', json(error_info)) end, :mark)
where agent_id = :agent;
