-- How much work got through, by the first :length characters of the moment (13: an hour, 10: a day), from :since on
-- (null: ever), the last period first: how many were spawned, completed, failed and killed in it.
select period, sum(spawned), sum(completed), sum(failed), sum(killed) from (
  select substr(spawned_at, 1, :length) as period, count(*) as spawned, 0 as completed, 0 as failed, 0 as killed
  from agent_lifecycle indexed by idx_spawned_at where spawned_at >= coalesce(:since, '') group by 1
  union all
  select substr(completed_at, 1, :length), 0, sum(status = 'completed'), sum(status = 'failed'), sum(status = 'killed')
  from agent_lifecycle indexed by agent_lifecycle_ended
  where completed_at is not null and completed_at >= coalesce(:since, '') group by 1)
group by period order by period desc;
