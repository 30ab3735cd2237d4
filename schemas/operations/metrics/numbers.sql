-- The numbers that `bus metrics` tells, beside those of the reports: one JSON object. Messages are counted as whoever
-- receives next would make them: see messages/messages.sql.
select json_object(
  'now', replace(:now, ' ', 'T') || 'Z',
  'sessions', (select json_group_array(json_array(status, n)) from (
    select status, count(*) as n from coordination_sessions group by status order by 1) s),
  'agents', (select json_group_array(json_array(agent_type, status, n)) from (
    select agent_type, status, count(*) as n from agent_registry group by agent_type, status order by 1, 2) a),
  'messages', (select json_group_array(json_array(status, n)) from (
    select case
      when expires_at <= :now and status in ('scheduled', 'ready') and leased_by is null then 'dead'
      when due_at <= :now and status = 'scheduled' then 'ready'
      else status end as status,
      count(*) as n
    from agent_messages group by 1 order by 1) m),
  'dead', (select json_group_array(json_array(dead_reason, n)) from (
    select dead_reason, count(*) as n from (
      select dead_reason from agent_messages where status = 'dead'
      union all
      select 'expired' from agent_messages indexed by agent_messages_timers
      where due_at <= :now and expires_at <= :now and status in ('scheduled', 'ready') and leased_by is null) over
    group by dead_reason order by 1) d),
  'sent', (select coalesce(max(id), 0) from agent_messages),
  'lives', (select json_group_array(json_array(agent_type, status, n)) from (
    select agent_type, status, count(*) as n from agent_lifecycle group by agent_type, status order by 1, 2) l),
  'durations', (select json_group_array(json_array(agent_type, n, milliseconds)) from (
    select agent_type, count(duration_ms) as n, sum(duration_ms) as milliseconds from agent_lifecycle
    group by agent_type order by 1) t),
  'exported', (select json_group_array(json_array(target, exported)) from trace_exports));
