-- The last of so many messages after one, and whether it is younger than cleanup_retention_days: then nothing that is to be
-- removed comes after it, since ids grow with time. (Where a clock was set back, some stay until those before them are old.)
select id, created_at <= :now and created_at > strftime('%Y-%m-%d %H:%M:%f', :now,
  '-' || (select value from agent_coordination_config where key = 'cleanup_retention_days') || ' days')
from agent_messages
where id = (
  select max(id) from (select id from agent_messages where id > :after order by id limit :limit) found);
