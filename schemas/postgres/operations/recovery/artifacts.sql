-- Differs: PostgreSQL's json_each is for objects, and an array has a function of its own; else as in schemas/operations.
select json_object('key', a.value -> 'key', 'weight', a.value -> 'weight',
  'saved_by', s.agent_id, 'updated_at', replace(s.updated_at, ' ', 'T') || 'Z')
from coordination_sessions c
join operation_types o on o.name = c.operation_type
cross join lateral json_array_elements(o.artifacts) with ordinality a (value, place)
left join agent_state s on s.state_key = a.value ->> 'key' and (s.expires_at is null or s.expires_at > :now)
  and (s.agent_id = c.session_id or s.agent_id in (select agent_id from agent_registry where session_id = :session))
where c.session_id = :session
order by a.place, s.updated_at desc, s.agent_id;
