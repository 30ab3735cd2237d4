-- The agents of a session, or all (null), the last heard of first.
select record from agent_records
where (:session is null or session_id = :session)
order by last_heartbeat desc, agent_id;
