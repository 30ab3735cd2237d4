-- Put messages back whose receiver was gone before it got them, by their receipts; returns id, address and status.
--
-- As messages/release.sql, but nobody worked on them: it counts as no attempt. What is not leased under its receipt any
-- more is left as it is.
update agent_messages set status = 'ready', due_at = expires_at, leased_by = null
where id in (select cast(substr(value, 1, instr(value, '.') - 1) as integer) from json_each(:receipts))
  and id || '.' || delivery in (select value from json_each(:receipts)) and status = 'leased'
returning id, to_agent, status;
