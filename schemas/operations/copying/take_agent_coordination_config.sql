-- Made by bin/generate: the rows of agent_coordination_config from a key on, by their keys; see bus/copying.py.
select
  key,
  value,
  description,
  replace(strftime('%Y-%m-%d %H:%M:%f', updated_at), ' ', 'T') || 'Z'
from agent_coordination_config
where key >= :from_a
order by key limit :limit;
