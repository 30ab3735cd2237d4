-- Made by bin/generate: the rows of agent_lifecycle from a key on, by their keys; see bus/copying.py.
select
  agent_id,
  pid,
  agent_type,
  task_id,
  task_type,
  priority_number,
  replace(strftime('%Y-%m-%d %H:%M:%f', spawned_at), ' ', 'T') || 'Z',
  replace(strftime('%Y-%m-%d %H:%M:%f', started_at), ' ', 'T') || 'Z',
  replace(strftime('%Y-%m-%d %H:%M:%f', completed_at), ' ', 'T') || 'Z',
  status,
  exit_code,
  duration_ms,
  idle_time_ms,
  command,
  worktree_path,
  error_message,
  metadata,
  registry_id,
  session_id,
  host,
  pid_namespace,
  process_started_at,
  boot_id,
  replace(strftime('%Y-%m-%d %H:%M:%f', last_seen_at), ' ', 'T') || 'Z',
  unseen,
  origin,
  output_tail,
  traceparent
from agent_lifecycle
where agent_id >= cast(:from_a as bigint)
order by agent_id limit :limit;
