-- Made by bin/generate: the rows of agent_state from a key on, by their keys; see bus/copying.py.
select
  agent_id,
  state_key,
  state_type,
  version,
  replace(strftime('%Y-%m-%d %H:%M:%f', created_at), ' ', 'T') || 'Z',
  replace(strftime('%Y-%m-%d %H:%M:%f', updated_at), ' ', 'T') || 'Z',
  replace(strftime('%Y-%m-%d %H:%M:%f', expires_at), ' ', 'T') || 'Z',
  state_value
from agent_state
where (agent_id, state_key) >= (:from_a, :from_b)
order by agent_id, state_key limit :limit;
