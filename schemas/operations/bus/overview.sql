-- What `bus top` shows beside the queues: one JSON object. Rates are of the last minute, among the 20,000 newest messages.
select json_object(
  'now', replace(:now, ' ', 'T') || 'Z',
  'sessions', (select json_group_array(json(record)) from (
    select record from session_records where status in ('active', 'paused') order by last_activity desc limit 8) s),
  'session_count', (select count(*) from coordination_sessions where status in ('active', 'paused')),
  'agents', (select json_group_array(json(record)) from (
    select record from agent_records where status not in ('completed', 'failed', 'terminated')
    order by last_heartbeat desc limit 200) a),
  'agent_count', (select count(*) from agent_registry where status not in ('completed', 'failed', 'terminated')),
  'leased', (select json_group_array(json_object('id', id, 'message_type', message_type, 'leased_by', leased_by,
      'delivered_at', replace(delivered_at, ' ', 'T') || 'Z', 'due_at', replace(due_at, ' ', 'T') || 'Z')) from (
    select id, message_type, leased_by, delivered_at, due_at from agent_messages
    where due_at is not null and status = 'leased' order by due_at limit 10) l),
  'in_flight', (select count(*) from agent_messages where due_at is not null and status = 'leased'),
  'sent', (select count(*) from agent_messages
    where id > (select max(id) from agent_messages) - 20000
      and created_at > strftime('%Y-%m-%d %H:%M:%f', :now, '-60 seconds')),
  'acknowledged', (select count(*) from agent_messages
    where id > (select max(id) from agent_messages) - 20000
      and acknowledged_at > strftime('%Y-%m-%d %H:%M:%f', :now, '-60 seconds')),
  'dead', (select count(*) from agent_messages where status = 'dead'),
  'running', (select count(*) from agent_lifecycle indexed by agent_lifecycle_open
    where status in ('spawned', 'running')),
  'stale_after', (select cast(value as real) from agent_coordination_config where key = 'stale_after'),
  'slowest', (select json_group_array(json_object('agent_id', agent_id, 'agent_type', agent_type, 'task_id', task_id,
      'duration_ms', duration_ms, 'bottleneck_type', bottleneck_type)) from (
    select * from agent_bottlenecks limit 5) b));
