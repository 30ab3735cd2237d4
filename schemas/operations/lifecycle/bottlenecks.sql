-- The :limit slowest completed agents, of :type (null: all), the slowest first; each with the 95th percentile of the
-- durations of its type, found as in velocity.sql.
with chosen as materialized (
  select * from (
    select agent_id, agent_type, task_id, priority_number, duration_ms, idle_time_ms, spawned_at, completed_at
    from agent_lifecycle indexed by idx_duration
    where :type is null and status = 'completed' and duration_ms is not null
    order by duration_ms desc limit :limit) of_all
  union all
  select * from (
    select agent_id, agent_type, task_id, priority_number, duration_ms, idle_time_ms, spawned_at, completed_at
    from agent_lifecycle indexed by agent_lifecycle_measures
    where agent_type = :type and status = 'completed' and duration_ms is not null
    order by duration_ms desc limit :limit) of_type),
slow as materialized (
  select agent_type, duration_ms as p95
  from (
    select agent_type, duration_ms, row_number() over (partition by agent_type order by duration_ms) - 1 as place,
      count(*) over (partition by agent_type) as n
    from agent_lifecycle indexed by agent_lifecycle_measures
    where agent_type in (select agent_type from chosen) and duration_ms is not null) placed
  where place = min(n * 95 / 100, n - 1))
select c.agent_id, c.agent_type, c.task_id, c.priority_number, c.duration_ms, c.idle_time_ms,
  replace(c.spawned_at, ' ', 'T') || 'Z', replace(c.completed_at, ' ', 'T') || 'Z',
  case when c.idle_time_ms > c.duration_ms * 0.5 then 'High Idle Time'
    when c.duration_ms > 1800000 then 'Long Duration'
    else 'Normal' end,
  c.duration_ms > s.p95
from chosen c join slow s on s.agent_type = c.agent_type
order by c.duration_ms desc, c.agent_id;
