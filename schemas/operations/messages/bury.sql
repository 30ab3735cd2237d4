-- Bury a message whose text can't be read; its receiver found it so.
update agent_messages
set status = 'dead', dead_reason = 'damaged', reason = 'the text is not what was sent', due_at = null, leased_by = null
where id = :id;
