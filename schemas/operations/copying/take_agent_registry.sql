-- Made by bin/generate: the rows of agent_registry from a key on, by their keys; see bus/copying.py.
select
  agent_id,
  agent_type,
  milestone_id,
  session_id,
  status,
  capabilities,
  current_task,
  current_phase,
  resource_usage,
  replace(strftime('%Y-%m-%d %H:%M:%f', spawn_time), ' ', 'T') || 'Z',
  replace(strftime('%Y-%m-%d %H:%M:%f', last_heartbeat), ' ', 'T') || 'Z',
  replace(strftime('%Y-%m-%d %H:%M:%f', completion_time), ' ', 'T') || 'Z',
  error_info,
  host,
  pid,
  pid_namespace,
  process_started_at,
  boot_id,
  command
from agent_registry
where agent_id >= :from_a
order by agent_id limit :limit;
