-- Remove health records after health_retention_days: so many at most. Returns their ids.
delete from agent_health_log
where id in (
  select id from agent_health_log
  where timestamp < strftime('%Y-%m-%d %H:%M:%f', :now,
    '-' || (select value from agent_coordination_config where key = 'health_retention_days') || ' days')
  order by timestamp limit :limit)
returning id;
