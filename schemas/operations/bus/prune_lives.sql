-- Remove the records of ended agents after lifecycle_retention_days: so many at most. Returns their ids.
delete from agent_lifecycle
where agent_id in (
  select agent_id from agent_lifecycle indexed by idx_spawned_at
  where spawned_at < strftime('%Y-%m-%d %H:%M:%f', :now,
    '-' || (select value from agent_coordination_config where key = 'lifecycle_retention_days') || ' days')
    and coalesce(completed_at, spawned_at) < strftime('%Y-%m-%d %H:%M:%f', :now,
      '-' || (select value from agent_coordination_config where key = 'lifecycle_retention_days') || ' days')
    and status not in ('spawned', 'running')
  order by spawned_at limit :limit)
returning agent_id;
