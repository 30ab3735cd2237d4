-- Made by bin/generate: the rows of coordination_sessions from a key on, by their keys; see bus/copying.py.
select
  session_id,
  milestone_id,
  operation_type,
  phase,
  coordinator_id,
  agent_count,
  progress + 0.0,
  status,
  configuration,
  replace(strftime('%Y-%m-%d %H:%M:%f', created_at), ' ', 'T') || 'Z',
  replace(strftime('%Y-%m-%d %H:%M:%f', last_activity), ' ', 'T') || 'Z',
  replace(strftime('%Y-%m-%d %H:%M:%f', completed_at), ' ', 'T') || 'Z'
from coordination_sessions
where session_id >= :from_a
order by session_id limit :limit;
