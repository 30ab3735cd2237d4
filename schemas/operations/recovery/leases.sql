-- What the agents of a session, or all (null), have leased: holder and what is told of each message, in no order.
select leased_by, json_object('id', id, 'from_agent', from_agent, 'message_type', message_type, 'priority', priority,
  'delivered_at', replace(delivered_at, ' ', 'T') || 'Z')
from agent_messages indexed by agent_messages_timers
where due_at is not null and status = 'leased'
  and leased_by is not null
  and (:session is null or leased_by in (select agent_id from agent_registry where session_id = :session));
