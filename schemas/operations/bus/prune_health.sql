-- Remove health records after health_retention_days: so many at most. Returns their ids. They are looked for below the
-- first younger one: ids grow with time, but where somebody sets the clock back.
delete from agent_health_log
where id in (
  select id from agent_health_log
  where timestamp < strftime('%Y-%m-%d %H:%M:%f', :now,
    '-' || (select value from agent_coordination_config where key = 'health_retention_days') || ' days')
    and id < coalesce((
      select id from agent_health_log
      where timestamp <= :now and timestamp >= strftime('%Y-%m-%d %H:%M:%f', :now,
        '-' || (select value from agent_coordination_config where key = 'health_retention_days') || ' days')
      order by id limit 1), 1000000000000000)
  order by id limit :limit)
returning id;
