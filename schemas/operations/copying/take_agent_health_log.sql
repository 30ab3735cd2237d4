-- Made by bin/generate: the rows of agent_health_log after the one given, by their keys; see bus/copying.py.
select
  id,
  agent_id,
  health_status,
  cpu_usage,
  memory_usage,
  response_time,
  error_count,
  warning_count,
  replace(strftime('%Y-%m-%d %H:%M:%f', timestamp), ' ', 'T') || 'Z',
  details
from agent_health_log
where id > cast(:after_a as bigint)
order by id limit :limit;
