-- Made by bin/generate: puts a row into coordination_sessions, as it was taken; see bus/copying.py.
insert into coordination_sessions (session_id, milestone_id, operation_type, phase, coordinator_id, agent_count, progress, status, configuration, created_at, last_activity, completed_at) values (
  :session_id,
  :milestone_id,
  :operation_type,
  :phase,
  :coordinator_id,
  cast(:agent_count as bigint),
  cast(:progress as double precision),
  :status,
  :configuration,
  strftime('%Y-%m-%d %H:%M:%f', :created_at),
  strftime('%Y-%m-%d %H:%M:%f', :last_activity),
  strftime('%Y-%m-%d %H:%M:%f', :completed_at));
