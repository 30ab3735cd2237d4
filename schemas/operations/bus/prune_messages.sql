-- Remove acknowledged messages after cleanup_retention_days: so many at most. Returns their ids. They are looked for below
-- the first younger one, as in prune_health.sql. The newest message stays, so that its id is never used again.
delete from agent_messages
where id in (
  select id from agent_messages
  where status = 'acknowledged'
    and acknowledged_at <= strftime('%Y-%m-%d %H:%M:%f', :now,
      '-' || (select value from agent_coordination_config where key = 'cleanup_retention_days') || ' days')
    and id < min((select max(id) from agent_messages), coalesce((
      select id from agent_messages
      where created_at <= :now and created_at > strftime('%Y-%m-%d %H:%M:%f', :now,
        '-' || (select value from agent_coordination_config where key = 'cleanup_retention_days') || ' days')
      order by id limit 1), 1000000000000000))
  order by id limit :limit)
returning id;
