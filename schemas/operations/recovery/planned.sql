-- Who kept a session's milestone plan, `:key`, last, whatever its operation type promises; what counts is told in
-- artifacts.sql.
select s.agent_id
from coordination_sessions c cross join agent_state s
where c.session_id = :session and s.state_key = :key and (s.expires_at is null or s.expires_at > :now)
  and (s.agent_id = c.session_id or (s.updated_at >= c.created_at
    and s.agent_id in (select agent_id from agent_registry where session_id = :session)))
  and s.updated_at >= coalesce(strftime('%Y-%m-%d %H:%M:%f', c.configuration ->> 'reopened_at'), '0001-01-01')
order by s.updated_at desc, s.agent_id limit 1;
