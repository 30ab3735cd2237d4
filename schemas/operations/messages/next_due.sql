-- The earliest moment at which something of an agent's mailbox or its type's queue becomes due, or null; and its type.
select
  (select min(due_at) from agent_messages
   where due_at is not null and mailbox in (:agent, (
     select '@' || agent_type || '/' || session_id from agent_registry where agent_id = :agent))),
  (select agent_type from agent_registry where agent_id = :agent);
