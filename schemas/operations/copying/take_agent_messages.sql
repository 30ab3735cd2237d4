-- Made by bin/generate: the rows of agent_messages from a key on, by their keys; see bus/copying.py.
select
  id,
  session_id,
  from_agent,
  to_agent,
  message_type,
  priority,
  status,
  replace(strftime('%Y-%m-%d %H:%M:%f', created_at), ' ', 'T') || 'Z',
  replace(strftime('%Y-%m-%d %H:%M:%f', delivered_at), ' ', 'T') || 'Z',
  replace(strftime('%Y-%m-%d %H:%M:%f', acknowledged_at), ' ', 'T') || 'Z',
  retry_count,
  replace(strftime('%Y-%m-%d %H:%M:%f', due_at), ' ', 'T') || 'Z',
  replace(strftime('%Y-%m-%d %H:%M:%f', expires_at), ' ', 'T') || 'Z',
  leased_by,
  delivery,
  idempotency_key,
  correlation_id,
  reply_to,
  dead_reason,
  reason,
  digest,
  payload,
  traceparent
from agent_messages
where id >= cast(:from_a as bigint)
order by id limit :limit;
