-- How fast the agents of each type are: those of :type (null: all) that were spawned at :since or later (null: ever).
--
-- Two walks along agent_lifecycle_measures, where each type's durations stand in their order: one sums up, the other
-- counts to the places of the percentiles. Percentile p of n durations is the one at floor(n * p / 100), counted from 0,
-- or the last. Completed per hour is over the time from the first spawn to the last end of those that are counted.
with totals as materialized (
  select agent_type, count(*) as total, count(*) filter (where status = 'completed') as completed,
    count(*) filter (where status = 'failed') as failed, count(*) filter (where status = 'killed') as killed,
    count(*) filter (where status in ('spawned', 'running')) as active, min(spawned_at) as first,
    max(completed_at) as last, cast(avg(duration_ms) as double precision) as mean,
    cast(avg(idle_time_ms) as double precision) as idle, count(duration_ms) as n
  from agent_lifecycle indexed by agent_lifecycle_measures
  where /*sqlite*/ agent_type >= coalesce(:type, '') and agent_type <= coalesce(:type, char(1114111)) /*end*/
    /*postgres (:type is null or agent_type = :type) */
    and spawned_at >= coalesce(:since, '0001-01-01')
  group by agent_type),
placed as (
  select agent_type, duration_ms, row_number() over (partition by agent_type order by duration_ms) - 1 as place
  from agent_lifecycle indexed by agent_lifecycle_measures
  where /*sqlite*/ agent_type >= coalesce(:type, '') and agent_type <= coalesce(:type, char(1114111)) /*end*/
    /*postgres (:type is null or agent_type = :type) */
    and duration_ms is not null and spawned_at >= coalesce(:since, '0001-01-01')),
percentiles as materialized (
  select p.agent_type, max(iif(place = min(n * 50 / 100, n - 1), duration_ms, null)) as p50,
    max(iif(place = min(n * 95 / 100, n - 1), duration_ms, null)) as p95,
    max(iif(place = min(n * 99 / 100, n - 1), duration_ms, null)) as p99
  from placed p cross join totals t
  where t.agent_type = p.agent_type
    and p.place in (min(n * 50 / 100, n - 1), min(n * 95 / 100, n - 1), min(n * 99 / 100, n - 1))
  group by p.agent_type)
select t.agent_type, total, completed, failed, killed, active,
  completed * 3600000e0 / nullif(round((julianday(last) - julianday(first)) * 86400000), 0),
  completed * 1e0 / nullif(completed + failed + killed, 0), mean, p50, p95, p99, idle
from totals t left join percentiles p on p.agent_type = t.agent_type
order by t.agent_type;
