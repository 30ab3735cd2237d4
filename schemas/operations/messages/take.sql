-- Lease one ready message, which messages/sources.sql found to be the next, as messages/receive.sql does; nothing when it
-- was delivered meanwhile. For a single message, the usual case, this is half the work.
update agent_messages set status = 'leased', leased_by = :agent, delivery = delivery + 1, delivered_at = :now, due_at = :due
where id = :id and delivery = :delivery and status = 'ready';
