-- The agents of a session (found by its index), or all (null), the last heard of first.
select record from agent_records
where agent_id in (
  select agent_id from agent_registry where session_id = :session
  union all select agent_id from agent_registry where :session is null)
order by last_heartbeat desc, agent_id;
