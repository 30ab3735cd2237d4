-- The earliest moment at which something of an agent's mailbox or its type's queue becomes due, or null.
select min(due_at) from agent_messages
where due_at is not null
  and mailbox in (:agent, (select '@' || agent_type || '/' || session_id from agent_registry where agent_id = :agent));
