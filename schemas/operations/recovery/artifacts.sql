-- The artifacts that a session's operation type promises, in its order, each with who saved it and when, the latest
-- first (null: nobody). What counts is kept under the session's own id, or state of its agents that was saved since the
-- session was made; and nothing from before it was opened again.
select json_object('key', a.value ->> 'key', 'weight', a.value -> 'weight',
  'saved_by', s.agent_id, 'updated_at', replace(s.updated_at, ' ', 'T') || 'Z')
from coordination_sessions c
join operation_types o on o.name = c.operation_type
cross join json_each(o.artifacts /*postgres ::jsonb */) a
left join agent_state s on s.state_key = a.value ->> 'key' and (s.expires_at is null or s.expires_at > :now)
  and (s.agent_id = c.session_id or (s.updated_at >= c.created_at
    and s.agent_id in (select agent_id from agent_registry where session_id = :session)))
  and s.updated_at >= coalesce(strftime('%Y-%m-%d %H:%M:%f', c.configuration ->> 'reopened_at'), '0001-01-01')
where c.session_id = :session
order by a.key, s.updated_at desc, s.agent_id;
