-- Acknowledge one message in the plain case, that it is leased under this delivery; who held it. No row: messages/ack.sql
-- must judge.
update agent_messages set status = 'acknowledged', acknowledged_at = :now, due_at = null
where id = :id and delivery = :delivery and status = 'leased';

select leased_by from agent_messages where id = :id and changes() = 1;
