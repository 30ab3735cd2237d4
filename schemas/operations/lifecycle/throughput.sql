-- How much work got through, by the first :length characters of the moment (13: an hour, 10: a day), from :since on
-- (null: ever), the last period first: how many were spawned, completed, failed and killed in it.
select period, cast(sum(spawned) as bigint), cast(sum(completed) as bigint), cast(sum(failed) as bigint),
  cast(sum(killed) as bigint)
from (
  select substr(replace(spawned_at, ' ', 'T'), 1, :length) as period, count(*) as spawned, 0 as completed, 0 as failed,
    0 as killed
  from agent_lifecycle indexed by idx_spawned_at
  where spawned_at >= coalesce(:since, '0001-01-01') group by 1
  union all
  select substr(replace(completed_at, ' ', 'T'), 1, :length), 0, count(*) filter (where status = 'completed'),
    count(*) filter (where status = 'failed'), count(*) filter (where status = 'killed')
  from agent_lifecycle indexed by agent_lifecycle_ended
  where completed_at is not null and completed_at >= coalesce(:since, '0001-01-01') group by 1) counted
group by period order by period desc;
