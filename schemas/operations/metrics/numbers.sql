-- The numbers that `bus metrics` tells, beside those of the reports: one JSON object.
select json_object(
  'now', replace(:now, ' ', 'T') || 'Z',
  'sessions', (select json_group_array(json_array(status, n)) from (
    select status, count(*) as n from coordination_sessions group by status) s),
  'agents', (select json_group_array(json_array(agent_type, status, n)) from (
    select agent_type, status, count(*) as n from agent_registry group by agent_type, status) a),
  'messages', (select json_group_array(json_array(status, n)) from (
    select status, count(*) as n from agent_messages group by status) m),
  'dead', (select json_group_array(json_array(dead_reason, n)) from (
    select dead_reason, count(*) as n from agent_messages where status = 'dead' group by dead_reason) d),
  'sent', (select coalesce(max(id), 0) from agent_messages),
  'queues', (select json_group_array(json_array(box.mailbox, box.n, replace(m.created_at, ' ', 'T') || 'Z')) from (
    select mailbox, count(*) as n, min(id) as first from agent_messages where status = 'ready'
    group by mailbox order by n desc limit 1000) box join agent_messages m on m.id = box.first),
  'lives', (select json_group_array(json_array(agent_type, status, n)) from (
    select agent_type, status, count(*) as n from agent_lifecycle group by agent_type, status) l),
  'durations', (select json_group_array(json_array(agent_type, n, milliseconds)) from (
    select agent_type, count(duration_ms) as n, sum(duration_ms) as milliseconds from agent_lifecycle
    group by agent_type) t),
  'exported', (select json_group_array(json_array(target, exported)) from trace_exports));
