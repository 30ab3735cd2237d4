-- Lease one ready message, which messages/sources.sql found to be the next, as messages/receive.sql does; its id and
-- record. For a single message, the usual case, this is half the work.
update agent_messages set
  status = 'leased', leased_by = :agent, delivery = delivery + 1, delivered_at = :now,
  due_at = strftime('%Y-%m-%d %H:%M:%f', :now, '+' || coalesce(:lease,
    (select value from agent_coordination_config where key = 'lease_seconds')) || ' seconds')
where id = :id;

select id, record from message_records where id = :id;
