-- Made by bin/generate: the rows of agent_health_log from a key on, by their keys; see bus/copying.py.
select
  id,
  agent_id,
  health_status,
  cpu_usage + 0.0,
  memory_usage + 0.0,
  response_time + 0.0,
  error_count,
  warning_count,
  replace(strftime('%Y-%m-%d %H:%M:%f', timestamp), ' ', 'T') || 'Z',
  details
from agent_health_log
where id >= cast(:from_a as bigint)
order by id limit :limit;
