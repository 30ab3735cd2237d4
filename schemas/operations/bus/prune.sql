-- Remove what is old: acknowledged messages after cleanup_retention_days, health records and the records of ended agents
-- after days of their own, state whose time is over, or that was deleted, for a day.
-- The newest message stays, so that its id is never used again. Returns how many messages went, then frees pages.
delete from agent_state
where expires_at <= strftime('%Y-%m-%d %H:%M:%f', :now, '-1 days')
  and updated_at <= strftime('%Y-%m-%d %H:%M:%f', :now, '-1 days');

delete from agent_health_log where timestamp < strftime('%Y-%m-%d %H:%M:%f', :now,
  '-' || (select value from agent_coordination_config where key = 'health_retention_days') || ' days');

delete from agent_lifecycle
where spawned_at < strftime('%Y-%m-%d %H:%M:%f', :now,
    '-' || (select value from agent_coordination_config where key = 'lifecycle_retention_days') || ' days')
  and coalesce(completed_at, spawned_at) < strftime('%Y-%m-%d %H:%M:%f', :now,
    '-' || (select value from agent_coordination_config where key = 'lifecycle_retention_days') || ' days')
  and status not in ('spawned', 'running');

delete from agent_messages
where status = 'acknowledged' and id < (select max(id) from agent_messages)
  and acknowledged_at <= strftime('%Y-%m-%d %H:%M:%f', :now,
    '-' || (select value from agent_coordination_config where key = 'cleanup_retention_days') || ' days')
returning id;
